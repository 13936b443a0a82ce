#include "converter/huggingface/architecture.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

struct Family {
  absl::string_view hugging_face_class;
  absl::StatusOr<std::unique_ptr<Architecture>> (*make)(const nlohmann::json& config,
                                                        const std::string& where);
};

constexpr Family kFamilies[] = {
    {"BitNetForCausalLM", MakeBitnet},
    {"BitnetForCausalLM", MakeBitnet},
    {"DeepseekV2ForCausalLM", MakeDeepSeek},
    {"DeepseekV3ForCausalLM", MakeDeepSeek},
    {"KimiK25ForConditionalGeneration", MakeDeepSeek},
    {"KimiVLForConditionalGeneration", MakeDeepSeek},
    {"LLaMAForCausalLM", MakeLlama},
    {"LlamaForCausalLM", MakeLlama},
    {"MistralForCausalLM", MakeLlama},
    {"MixtralForCausalLM", MakeMixtral},
    {"OlmoeForCausalLM", MakeOlmoe},
    {"Qwen2ForCausalLM", MakeQwen2},
    {"Qwen2MoeForCausalLM", MakeQwen2Moe},
    {"Qwen3ForCausalLM", MakeQwen3},
    {"Qwen3MoeForCausalLM", MakeQwen3Moe},
};

}  // namespace

bool Architecture::Has(const NameRule& rule, int64_t layer) const {
  const bool dense = config_.num_experts == 0 || layer < config_.first_k_dense_replace;
  if (rule.place == RulePlace::kDenseLayers && !dense) return false;
  if (rule.place == RulePlace::kExpertLayers && dense) return false;
  const bool sized = std::none_of(rule.shape.begin(), rule.shape.end(), [&](Dim dim) {
    return dim != Dim::kNone && DimensionOf(config_, dim).size == 0;
  });
  return sized && HasBesides(rule, layer);
}

bool Architecture::HasBesides(const NameRule&, int64_t) const { return true; }

void Architecture::AddKeys(uint32_t file_type, GgufMetadata& metadata) const {
  KeyWriter keys(name(), metadata);
  AddConfigKeys(config_, file_type, keys);
}

absl::StatusOr<std::unique_ptr<Architecture>> FindArchitecture(const nlohmann::json& config,
                                                               const std::string& where) {
  const auto classes = config.find("architectures");
  std::string asked = "none";
  if (classes != config.end() && classes->is_array() && !classes->empty() &&
      classes->front().is_string()) {
    asked = classes->front().get<std::string>();
  }
  for (const Family& family : kFamilies) {
    if (family.hugging_face_class == asked) return family.make(config, where);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": architecture ", asked,
      " is not known; known: ", absl::StrJoin(KnownArchitectures(), ", "),
      ". Another can be converted by naming its tensors with --tensor-map and its keys "
      "with --metadata"));
}

std::vector<absl::string_view> KnownArchitectures() {
  std::vector<absl::string_view> known;
  for (const Family& family : kFamilies) known.push_back(family.hugging_face_class);
  return known;
}

}  // namespace odmoe
