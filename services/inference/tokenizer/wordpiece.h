// BERT's tokenizer: words, and the longest known beginnings of what is left of them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// tokenizer.ggml.model "bert". A fragment loses control characters and, where normalizer.lowercase
// and normalizer.strip_accents say so (they do where the keys are missing), capitals and accents.
// White space ends a word; punctuation and CJK ideographs are words of their own. A word, U+2581 in
// front, is cut into the longest tokens from the left; where that fails it is the unknown token.
// INVALID_ARGUMENT: keys of another type; no unknown token.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeWordPiece(const GgufMetadata& metadata,
                                                               const Vocabulary& vocabulary);

}  // namespace odmoe
