// SentencePiece's byte-pair encoding: merges by the scores of what they make.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// tokenizer.ggml.model "llama". A fragment gets a space in front where add_space_prefix says so (it
// does where the key is missing), spaces become U+2581, and of all neighbours whose joined text is
// a token those of the highest score, of these the leftmost, become one, until none are left. A
// character that no token writes is the tokens of its bytes, or the unknown token.
// INVALID_ARGUMENT: keys of another type; neither byte tokens nor an unknown token.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeSentencePieceBpe(const GgufMetadata& metadata,
                                                                      const Vocabulary& vocabulary);

}  // namespace odmoe
