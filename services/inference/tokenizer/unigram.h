// SentencePiece's unigram language model: the most likely tokens a text can be cut into.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// tokenizer.ggml.model "t5". A fragment is normalized by precompiled_charsmap, its spaces become
// U+2581, with one in front where add_space_prefix and runs as one where remove_extra_whitespaces
// say so; then the tokens with the greatest sum of scores are found (Viterbi). User-defined tokens
// score 0; a character that no token writes is unknown and costs 10 more than the worst token; the
// unknown token stands for a run of such.
// INVALID_ARGUMENT: keys of another type; a broken character map; no unknown token.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeUnigram(const GgufMetadata& metadata,
                                                             const Vocabulary& vocabulary);

}  // namespace odmoe
