// DeepSeek-V2, DeepSeek-V3 and Kimi-K2 as GGUF's deepseek2, with MLA's up-projection split in two.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "converter/huggingface/architecture.h"

namespace odmoe {

// INVALID_ARGUMENT: config.json lacks a setting, or has one out of range.
absl::StatusOr<std::unique_ptr<Architecture>> MakeDeepSeek(const Checkpoint& checkpoint);

}  // namespace odmoe
