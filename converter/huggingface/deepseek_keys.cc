#include <utility>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/deepseek_config.h"

namespace odmoe {
namespace {

// Sets keys below the architecture's name, each in the type the reference converter gives it.
class KeyWriter {
 public:
  explicit KeyWriter(GgufMetadata& metadata) : metadata_(metadata) {}

  void Int(absl::string_view key, int64_t value) {
    Set(key, GgufValue::U32(static_cast<uint32_t>(value)));
  }
  void Int(absl::string_view key, std::optional<int64_t> value) {
    if (value.has_value()) Int(key, *value);
  }
  void Float(absl::string_view key, double value) {
    Set(key, GgufValue::F32(static_cast<float>(value)));
  }
  void Float(absl::string_view key, std::optional<double> value) {
    if (value.has_value()) Float(key, *value);
  }
  void Set(absl::string_view key, GgufValue value) {
    metadata_.Set(absl::StrCat(kDeepSeekArchitecture, ".", key), std::move(value));
  }

 private:
  GgufMetadata& metadata_;
};

void AddSizes(const DeepSeekConfig& c, KeyWriter& keys) {
  keys.Int("block_count", c.num_hidden_layers);
  keys.Int("context_length", c.max_position_embeddings);
  keys.Int("embedding_length", c.hidden_size);
  keys.Int("feed_forward_length", c.intermediate_size);
  keys.Int("attention.head_count", c.num_attention_heads);
  // With the up-projections absorbed, all heads share one latent key and value.
  keys.Int("attention.head_count_kv", 1);
}

void AddRope(const DeepSeekConfig& c, KeyWriter& keys) {
  if (c.yarn.factor > 0.0) {
    keys.Set("rope.scaling.type", GgufValue::String("yarn"));
    keys.Float("rope.scaling.factor", c.yarn.factor);
    keys.Int("rope.scaling.original_context_length", c.yarn.original_max_position_embeddings);
    keys.Float("rope.scaling.yarn_ext_factor", c.yarn.extrapolation_factor);
    keys.Float("rope.scaling.yarn_attn_factor", c.yarn.attention_factor);
    keys.Float("rope.scaling.yarn_beta_fast", c.yarn.beta_fast);
    keys.Float("rope.scaling.yarn_beta_slow", c.yarn.beta_slow);
  }
  keys.Float("rope.freq_base", c.rope_theta);
  keys.Float("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
}

void AddRouting(const DeepSeekConfig& c, KeyWriter& keys) {
  keys.Int("expert_used_count", c.num_experts_per_tok);
  keys.Int("expert_group_count", c.n_group);
  keys.Int("expert_group_used_count", c.topk_group);
  if (c.scoring_func.has_value()) {
    constexpr int64_t kSoftmax = 1, kSigmoid = 2;
    keys.Int("expert_gating_func", *c.scoring_func == "sigmoid" ? kSigmoid : kSoftmax);
  }
}

void AddLatentAttention(const DeepSeekConfig& c, KeyWriter& keys) {
  keys.Int("leading_dense_block_count", c.first_k_dense_replace);
  keys.Int("vocab_size", c.vocab_size);
  if (c.q_lora_rank > 0) keys.Int("attention.q_lora_rank", c.q_lora_rank);
  keys.Int("attention.kv_lora_rank", c.kv_lora_rank);
  keys.Int("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  keys.Int("attention.value_length", c.kv_lora_rank);
  keys.Int("attention.key_length_mla", c.qk_nope_head_dim + c.qk_rope_head_dim);
  keys.Int("attention.value_length_mla", c.v_head_dim);
}

void AddExperts(const DeepSeekConfig& c, KeyWriter& keys) {
  keys.Int("expert_feed_forward_length", c.moe_intermediate_size);
  keys.Int("expert_count", c.n_routed_experts);
  keys.Int("expert_shared_count", c.n_shared_experts);
  keys.Float("expert_weights_scale", c.routed_scaling_factor);
  if (c.norm_topk_prob) keys.Set("expert_weights_norm", GgufValue::Bool(true));
  keys.Int("rope.dimension_count", c.qk_rope_head_dim);
  if (c.yarn.mscale_all_dim.has_value()) {
    // Readers of this architecture divide the 0.1 of YaRN's formula out again.
    keys.Float("rope.scaling.yarn_log_multiplier", 0.1 * *c.yarn.mscale_all_dim);
  }
}

}  // namespace

void AddDeepSeekKeys(const DeepSeekConfig& config, uint32_t file_type, GgufMetadata& metadata) {
  KeyWriter keys(metadata);
  AddSizes(config, keys);
  AddRope(config, keys);
  AddRouting(config, keys);
  metadata.Set("general.file_type", GgufValue::U32(file_type));
  AddLatentAttention(config, keys);
  AddExperts(config, keys);
}

}  // namespace odmoe
