#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/families/common_rules.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr const char* kExpertsRequired[] = {
    "vocab_size",  "hidden_size",         "moe_intermediate_size", "num_hidden_layers",
    "num_experts", "num_attention_heads", "num_experts_per_tok"};
// Qwen2's shared expert, weighed by a gate of its own.
constexpr NameRule kSharedExpert[] = {
    {"model.layers.{}.mlp.shared_expert_gate.weight", "blk.{}.ffn_gate_inp_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kOne, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_expert.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedExpertFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_expert.up_proj.weight", "blk.{}.ffn_up_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedExpertFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_expert.down_proj.weight", "blk.{}.ffn_down_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kSharedExpertFeedForward}},
};

class Qwen : public Architecture {
 public:
  Qwen(absl::string_view name, CheckpointConfig config, std::vector<NameRule> rules)
      : Architecture(std::move(config), std::move(rules)), name_(name) {}

  absl::string_view name() const override { return name_; }

  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    Architecture::AddKeys(file_type, metadata);
    KeyWriter keys(name(), metadata);
    const auto add = [&](absl::string_view key, int64_t value) {
      if (config_.num_experts > 0 && value > 0) keys.Int(key, value);
    };
    add("expert_feed_forward_length", config_.moe_intermediate_size);
    add("expert_shared_feed_forward_length", config_.shared_expert_intermediate_size);
  }

 private:
  const absl::string_view name_;
};

absl::StatusOr<std::unique_ptr<Architecture>> MakeDense(
    absl::string_view name, const nlohmann::json& config, const std::string& where,
    std::vector<NameRule> rules) {
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "hidden_act", "silu",
                                       absl::StrCat("GGUF's ", name, " has no other")));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kDenseRequired));
  return std::make_unique<Qwen>(name, std::move(read), std::move(rules));
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeWithExperts(
    absl::string_view name, const nlohmann::json& config, const std::string& where,
    std::vector<NameRule> rules) {
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "hidden_act", "silu",
                                       absl::StrCat("GGUF's ", name, " has no other")));
  const std::string experts_everywhere =
      absl::StrCat("GGUF's ", name, " has experts in every layer");
  ODMOE_RETURN_IF_ERROR(
      RequireSetting(config, where, "decoder_sparse_step", 1, experts_everywhere));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "mlp_only_layers", nlohmann::json::array(),
                                       experts_everywhere));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kExpertsRequired));
  return std::make_unique<Qwen>(name, std::move(read), std::move(rules));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen2(const nlohmann::json& config,
                                                        const std::string& where) {
  return MakeDense("qwen2", config, where,
                   JoinRules({ModelRules(), LayerNormRules(), AttentionRules(), DenseRules()}));
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen3(const nlohmann::json& config,
                                                        const std::string& where) {
  return MakeDense("qwen3", config, where,
                   JoinRules({ModelRules(), LayerNormRules(), AttentionRules(), HeadNormRules(),
                              DenseRules()}));
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen2Moe(const nlohmann::json& config,
                                                           const std::string& where) {
  ODMOE_RETURN_IF_ERROR(
      RequireSetting(config, where, "norm_topk_prob", false,
                     "GGUF's qwen2moe does not make the chosen experts' weights sum to one"));
  return MakeWithExperts("qwen2moe", config, where,
                         JoinRules({ModelRules(), LayerNormRules(), AttentionRules(),
                                    RouterRules(), ExpertRules(), kSharedExpert}));
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeQwen3Moe(const nlohmann::json& config,
                                                           const std::string& where) {
  constexpr absl::string_view kReason =
      "GGUF's qwen3moe makes the chosen experts' weights sum to one";
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "norm_topk_prob", true, kReason));
  if (!config.contains("norm_topk_prob")) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": 'norm_topk_prob' is missing, which means false: ", kReason));
  }
  return MakeWithExperts("qwen3moe", config, where,
                         JoinRules({ModelRules(), LayerNormRules(), AttentionRules(),
                                    HeadNormRules(), RouterRules(), ExpertRules()}));
}

}  // namespace odmoe
