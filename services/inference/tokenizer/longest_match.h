// RWKV's tokenizer: at each place the longest token there is.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// tokenizer.ggml.model "rwkv". A byte that no token begins with is the unknown token, where there
// is one, else left out.
std::unique_ptr<FragmentEncoder> MakeLongestMatch(const Vocabulary& vocabulary);

}  // namespace odmoe
