// Which of a checkpoint's weights are ternary, and how they are stored.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"

namespace odmoe {

// Whether config.json is of a model whose layers are ternary: its quantization_config's
// quant_method is "bitnet", or its class is BitNetForCausalLM or BitnetForCausalLM.
bool IsTernaryCheckpoint(const nlohmann::json& config);

// Marks the projections' weights as ternary, each with its kind and, where it is packed, joined
// with its scale. Packed ("offline") are those stored as U8 beside a `weight_scale`; the others
// ("online") are the weights that training keeps, which layers round as they are used. linear_class
// "autobitlinear" means that weight_scale multiplies; with any other class it divides.
// DATA_LOSS: packs without scale, or of shapes that do not belong together.
absl::Status JoinTernaryWeights(const nlohmann::json& config, const std::string& where,
                                std::vector<CheckpointTensor>& tensors);

}  // namespace odmoe
