// Byte-level byte-pair encoding, as GPT-2 and most models since have it.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// An encoder by tokenizer.ggml.pre and tokenizer.ggml.merges: Unicode's normal form C where the
// pre-tokenizer wants it, the pre-tokenizer's split, then merging within each piece.
// INVALID_ARGUMENT: keys missing or contradictory. UNIMPLEMENTED: a pre-tokenizer not known.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeByteLevelBpe(const GgufMetadata& metadata,
                                                                  const Vocabulary& vocabulary);

}  // namespace odmoe
