// What the toy models need of the DeepSeek family beside a checkpoint.
#pragma once

#include <cstdint>

#include "converter/huggingface/checkpoint_config.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// What GGUF calls the family.
inline constexpr char kDeepSeekArchitecture[] = "deepseek2";

// Sets the architecture's keys, in the order the reference converter writes them.
void AddDeepSeekKeys(CheckpointConfig config, uint32_t file_type, GgufMetadata& metadata);

}  // namespace odmoe
