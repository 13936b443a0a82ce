// PLaMo-2's tokenizer: the cheapest way to cut a text, found from its end.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/inference/tokenizer/fragment_encoder.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// tokenizer.ggml.model "plamo2". Scores count in whole ten-thousandths; a character that no token
// writes costs 1000 and is the tokens of its bytes; of equal ways the one with the longer first
// token counts. A byte order mark in front is left out.
// INVALID_ARGUMENT: one of the 256 byte tokens is missing.
absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakePlamoLattice(const Vocabulary& vocabulary);

}  // namespace odmoe
