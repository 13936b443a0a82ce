// Byte-pair encoding with listed merges, as GPT-2 and most models since have it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/core/formats/pre_tokenizers.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// By tokenizer.ggml.pre; files without one mean "default". UNIMPLEMENTED: not known.
absl::StatusOr<const PreTokenizer*> ReadPreTokenizer(const GgufMetadata& metadata);

// An encoder by `pre` and tokenizer.ggml.merges: Unicode's normal form C where the pre-tokenizer
// wants it, the pre-tokenizer's split, then merging within each piece.
// INVALID_ARGUMENT: keys missing or contradictory.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeBytePairEncoder(const GgufMetadata& metadata,
                                                                     const PreTokenizer& pre,
                                                                     const Vocabulary& vocabulary);

}  // namespace odmoe
