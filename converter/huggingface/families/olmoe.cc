#include <utility>

#include <nlohmann/json.hpp>

#include "converter/huggingface/families/common_rules.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr const char* kOlmoeRequired[] = {
    "vocab_size",          "hidden_size", "intermediate_size",  "num_hidden_layers",
    "num_attention_heads", "num_experts", "num_experts_per_tok"};

// Query and key are normed over all heads together; experts are as wide as intermediate_size says.
constexpr NameRule kRules[] = {
    {"model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight",
     RulePlace::kEveryLayer, {Dim::kQueryHeads}},
    {"model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight",
     RulePlace::kEveryLayer, {Dim::kKeyHeads}},
    {"model.layers.{}.mlp.experts.{}.down_proj.weight", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kFeedForward}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.{}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.{}.up_proj.weight", "blk.{}.ffn_up_exps.weight",
     RulePlace::kExpertLayers, {Dim::kFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kHidden, Dim::kFeedForward},
     RuleKind::kFusedStack, RuleNeed::kIfFused},
    {"model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kTwoFeedForward, Dim::kHidden},
     RuleKind::kFusedGateUp, RuleNeed::kIfFused, "blk.{}.ffn_up_exps.weight"},
};

class Olmoe : public Architecture {
 public:
  explicit Olmoe(CheckpointConfig config)
      : Architecture(std::move(config), JoinRules({ModelRules(), LayerNormRules(),
                                                   AttentionRules(), RouterRules(), kRules})) {}

  absl::string_view name() const override { return "olmoe"; }

  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    Architecture::AddKeys(file_type, metadata);
    constexpr double kEpsilon = 1e-5;  // the family's, whatever config.json says
    KeyWriter(name(), metadata).Float("attention.layer_norm_rms_epsilon", kEpsilon);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> MakeOlmoe(const nlohmann::json& config,
                                                        const std::string& where) {
  ODMOE_RETURN_IF_ERROR(
      RequireSetting(config, where, "norm_topk_prob", false,
                     "GGUF's olmoe does not make the chosen experts' weights sum to one"));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "clip_qkv", nullptr,
                                       "GGUF's olmoe does not clip queries, keys and values"));
  ODMOE_RETURN_IF_ERROR(
      RequireSetting(config, where, "hidden_act", "silu", "GGUF's olmoe has no other"));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kOlmoeRequired));
  return std::make_unique<Olmoe>(std::move(read));
}

}  // namespace odmoe
