#include "converter/huggingface/config_keys.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

std::optional<int64_t> Positive(int64_t count) {
  return count > 0 ? std::optional<int64_t>(count) : std::nullopt;
}

void AddSizes(const CheckpointConfig& c, KeyWriter& keys) {
  keys.Int("block_count", c.num_hidden_layers);
  keys.Int("context_length", Positive(c.max_position_embeddings));
  keys.Int("embedding_length", Positive(c.hidden_size));
  keys.Int("feed_forward_length", Positive(c.intermediate_size));
  keys.Int("attention.head_count", Positive(c.num_attention_heads));
  keys.Int("attention.head_count_kv", Positive(c.num_key_value_heads));
}

void AddRope(const RopeSettings& rope, KeyWriter& keys) {
  if (rope.type == "linear" || rope.type == "yarn") {
    keys.Text("rope.scaling.type", rope.type);
    keys.Float("rope.scaling.factor", rope.factor);
  }
  if (rope.type == "yarn") {
    keys.Int("rope.scaling.original_context_length", rope.original_max_position_embeddings);
    keys.Float("rope.scaling.yarn_ext_factor", rope.extrapolation_factor);
    keys.Float("rope.scaling.yarn_attn_factor", rope.attention_factor);
    keys.Float("rope.scaling.yarn_beta_fast", rope.beta_fast);
    keys.Float("rope.scaling.yarn_beta_slow", rope.beta_slow);
  }
  keys.Float("rope.freq_base", rope.theta);
}

void AddRouting(const CheckpointConfig& c, KeyWriter& keys) {
  keys.Int("expert_count", Positive(c.num_experts));
  keys.Int("expert_used_count", Positive(c.num_experts_per_tok));
  keys.Int("expert_group_count", c.n_group);
  keys.Int("expert_group_used_count", c.topk_group);
  if (c.scoring_func.has_value()) {
    constexpr int64_t kSoftmax = 1, kSigmoid = 2;
    keys.Int("expert_gating_func", *c.scoring_func == "sigmoid" ? kSigmoid : kSoftmax);
  }
}

}  // namespace

void KeyWriter::Set(absl::string_view key, GgufValue value) {
  metadata_.Set(absl::StrCat(architecture_, ".", key), std::move(value));
}
void KeyWriter::Int(absl::string_view key, std::optional<int64_t> value) {
  if (value.has_value()) Set(key, GgufValue::U32(static_cast<uint32_t>(*value)));
}
void KeyWriter::Float(absl::string_view key, std::optional<double> value) {
  if (value.has_value()) Set(key, GgufValue::F32(static_cast<float>(*value)));
}
void KeyWriter::Bool(absl::string_view key, bool value) { Set(key, GgufValue::Bool(value)); }
void KeyWriter::Text(absl::string_view key, std::string value) {
  Set(key, GgufValue::String(std::move(value)));
}
void KeyWriter::FileType(uint32_t file_type) {
  metadata_.Set("general.file_type", GgufValue::U32(file_type));
}

void AddConfigKeys(const CheckpointConfig& config, uint32_t file_type, KeyWriter& keys) {
  AddSizes(config, keys);
  AddRope(config.rope, keys);
  keys.Float("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  AddRouting(config, keys);
  keys.Int("attention.key_length", Positive(config.head_dim));
  keys.Int("attention.value_length", Positive(config.head_dim));
  keys.FileType(file_type);
}

}  // namespace odmoe
