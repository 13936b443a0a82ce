// Weights that a checkpoint stores quantized, as config.json's quantization_config says.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"

namespace odmoe {

// Joins each quantized weight with its scales into one tensor, under the weight's name. Known are
// fp8 (F8_E4M3 with weight_scale_inv, in blocks, rows or one) and compressed-tensors in the formats
// pack-quantized (int4, symmetric, in groups; such tensors go to the end, where the reference
// converter has them) and float-quantized (F8_E4M3 with weight_scale). `where` names config.json.
// Does nothing without a quantization_config.
// UNIMPLEMENTED: another way of quantizing (the message says which are known). DATA_LOSS: weights
// without their scales, or of shapes that do not belong together.
absl::Status JoinQuantizedWeights(const nlohmann::json& config, const std::string& where,
                                  std::vector<CheckpointTensor>& tensors);

}  // namespace odmoe
