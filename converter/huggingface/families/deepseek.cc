#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "converter/huggingface/families/common_rules.h"
#include "converter/huggingface/families/deepseek.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr const char* kDeepseekRequired[] = {
    "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers",
    "num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    "n_routed_experts", "num_experts_per_tok", "max_position_embeddings"};

constexpr char kPlainQuery[] = "model.layers.{}.self_attn.q_proj.weight";
constexpr char kSelectionBias[] = "model.layers.{}.mlp.gate.e_score_correction_bias";

constexpr NameRule kRules[] = {
    {kPlainQuery, "blk.{}.attn_q.weight", RulePlace::kEveryLayer,
     {Dim::kLatentQueryHeads, Dim::kHidden}},
    {"model.layers.{}.self_attn.q_a_proj.weight", "blk.{}.attn_q_a.weight",
     RulePlace::kEveryLayer, {Dim::kQueryRank, Dim::kHidden}},
    {"model.layers.{}.self_attn.q_a_layernorm.weight", "blk.{}.attn_q_a_norm.weight",
     RulePlace::kEveryLayer, {Dim::kQueryRank}},
    {"model.layers.{}.self_attn.q_b_proj.weight", "blk.{}.attn_q_b.weight",
     RulePlace::kEveryLayer, {Dim::kLatentQueryHeads, Dim::kQueryRank}},
    {"model.layers.{}.self_attn.kv_a_proj_with_mqa.weight", "blk.{}.attn_kv_a_mqa.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueLatent, Dim::kHidden}},
    {"model.layers.{}.self_attn.kv_a_layernorm.weight", "blk.{}.attn_kv_a_norm.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueRank}},
    {"model.layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_k_b.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueHeads, Dim::kKeyValueRank}, RuleKind::kSplitKeyValue,
     RuleNeed::kRequired, "blk.{}.attn_v_b.weight"},
    {"model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight",
     RulePlace::kEveryLayer, {Dim::kHidden, Dim::kValueHeads}},
    {kSelectionBias, "blk.{}.exp_probs_b.bias", RulePlace::kExpertLayers, {Dim::kExperts}},
    {"model.layers.{}.mlp.shared_experts.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_experts.up_proj.weight", "blk.{}.ffn_up_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_experts.down_proj.weight", "blk.{}.ffn_down_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kSharedFeedForward}},
};

class DeepSeek : public Architecture {
 public:
  DeepSeek(CheckpointConfig config, bool groups_by_best)
      : Architecture(std::move(config),
                     JoinRules({ModelRules(), LayerNormRules(), kRules, DenseRules(),
                                RouterRules(), ExpertRules()})),
        groups_by_best_(groups_by_best) {}

  absl::string_view name() const override { return kDeepSeekArchitecture; }
  // They are the multi-token prediction, which readers of deepseek2 do not use.
  bool IgnoresLayersPastTheLast() const override { return true; }
  bool DropsTiedHead() const override { return true; }
  std::string Note() const override {
    if (!groups_by_best_) return "";
    return "the checkpoint ranks groups of experts by the best of each (group_limited_greedy); "
           "GGUF has "
           "no key for that, and its readers rank them by the sum of the best two";
  }
  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    AddDeepSeekKeys(config_, file_type, metadata);
  }

 private:
  bool HasBesides(const NameRule& rule, int64_t) const override {
    if (rule.from == kPlainQuery) return config_.q_lora_rank == 0;
    if (rule.from == kSelectionBias) return config_.has_selection_bias;
    return true;
  }

  const bool groups_by_best_;
};

}  // namespace

void AddDeepSeekKeys(CheckpointConfig config, uint32_t file_type, GgufMetadata& metadata) {
  KeyWriter keys(kDeepSeekArchitecture, metadata);
  // With the up-projections absorbed, all heads share one latent key and value.
  config.num_key_value_heads = 1;
  constexpr double kDefaultEpsilon = 1e-6;
  if (!config.rms_norm_eps.has_value()) config.rms_norm_eps = kDefaultEpsilon;
  AddConfigKeys(config, file_type, keys);
  keys.Int("leading_dense_block_count", config.first_k_dense_replace);
  keys.Int("vocab_size", config.vocab_size);
  if (config.q_lora_rank > 0) keys.Int("attention.q_lora_rank", config.q_lora_rank);
  keys.Int("attention.kv_lora_rank", config.kv_lora_rank);
  keys.Int("attention.key_length", config.kv_lora_rank + config.qk_rope_head_dim);
  keys.Int("attention.value_length", config.kv_lora_rank);
  keys.Int("attention.key_length_mla", config.qk_nope_head_dim + config.qk_rope_head_dim);
  keys.Int("attention.value_length_mla", config.v_head_dim);
  keys.Int("expert_feed_forward_length", config.moe_intermediate_size);
  keys.Int("expert_count", config.num_experts);
  keys.Int("expert_shared_count", config.n_shared_experts);
  keys.Float("expert_weights_scale", config.routed_scaling_factor);
  if (config.norm_topk_prob) keys.Bool("expert_weights_norm", true);
  keys.Int("rope.dimension_count", config.qk_rope_head_dim);
  if (config.rope.mscale_all_dim.has_value()) {
    // Readers of this architecture divide the 0.1 of YaRN's formula out again.
    keys.Float("rope.scaling.yarn_log_multiplier", 0.1 * *config.rope.mscale_all_dim);
  }
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeDeepSeek(const nlohmann::json& config,
                                                           const std::string& where) {
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "moe_layer_freq", 1,
                                       "deepseek2 has experts in every layer past the first dense "
                                       "ones"));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kDeepseekRequired));
  const auto text = [&config](const char* key) {
    const auto found = config.find(key);
    return found != config.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto groups = config.find("n_group");
  const bool several =
      groups != config.end() && groups->is_number_integer() && groups->get<int64_t>() > 1;
  return std::make_unique<DeepSeek>(
      std::move(read), several && text("topk_method") == "group_limited_greedy");
}

}  // namespace odmoe
