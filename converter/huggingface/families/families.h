// The model families, each made from config.json; `where` names that file. INVALID_ARGUMENT: a
// setting is missing, wrong, or one that GGUF cannot express for the family.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "converter/huggingface/architecture.h"

namespace odmoe {

// BitNet b1.58 and DLM: "bitnet-b1.58" with squared ReLU, "bitnet" with SiLU.
absl::StatusOr<std::unique_ptr<Architecture>> MakeBitnet(const nlohmann::json& config,
                                                         const std::string& where);
// DeepSeek-V2, -V2-Lite, -V3, Kimi-K2 and the text part of Kimi-VL and Kimi-K2.5: "deepseek2".
absl::StatusOr<std::unique_ptr<Architecture>> MakeDeepSeek(const nlohmann::json& config,
                                                           const std::string& where);
// Llama 2 and 3 and Mistral; Mixtral: "llama".
absl::StatusOr<std::unique_ptr<Architecture>> MakeLlama(const nlohmann::json& config,
                                                        const std::string& where);
absl::StatusOr<std::unique_ptr<Architecture>> MakeMixtral(const nlohmann::json& config,
                                                          const std::string& where);
// "olmoe"
absl::StatusOr<std::unique_ptr<Architecture>> MakeOlmoe(const nlohmann::json& config,
                                                        const std::string& where);
// "qwen2", "qwen3", "qwen2moe", "qwen3moe"
absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen2(const nlohmann::json& config,
                                                        const std::string& where);
absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen3(const nlohmann::json& config,
                                                        const std::string& where);
absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen2Moe(const nlohmann::json& config,
                                                           const std::string& where);
absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen3Moe(const nlohmann::json& config,
                                                           const std::string& where);

}  // namespace odmoe
