// A checkpoint's weights as the tensors of a GGUF file, by an architecture's rules.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "converter/huggingface/architecture.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/output_tensor.h"

namespace odmoe {

// The output's tensors in order, their formats not chosen yet (dtype and bytes are unset). They
// refer to the checkpoint.
// NOT_FOUND: weights are missing (the first is named, and the nearest found). INVALID_ARGUMENT: a
// weight this family does not have. DATA_LOSS: a shape that contradicts config.json (which settings
// is named).
absl::StatusOr<std::vector<OutputTensor>> MapTensors(const Checkpoint& checkpoint,
                                                     const Architecture& architecture);

}  // namespace odmoe
