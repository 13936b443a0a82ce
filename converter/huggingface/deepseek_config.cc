#include "converter/huggingface/deepseek_config.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

// No model is near these; they keep every product of two of them inside 64 bits.
constexpr int64_t kMaxDimension = 1 << 24;
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxContext = int64_t{1} << 31;

struct IntSetting {
  const char* key;
  int64_t DeepSeekConfig::*member;
  int64_t least;
  int64_t most;
  bool required;
};

constexpr IntSetting kSettings[] = {
    {"vocab_size", &DeepSeekConfig::vocab_size, 1, kMaxDimension, true},
    {"hidden_size", &DeepSeekConfig::hidden_size, 1, kMaxDimension, true},
    {"intermediate_size", &DeepSeekConfig::intermediate_size, 1, kMaxDimension, true},
    {"moe_intermediate_size", &DeepSeekConfig::moe_intermediate_size, 1, kMaxDimension, true},
    {"num_hidden_layers", &DeepSeekConfig::num_hidden_layers, 1, kMaxLayers, true},
    {"first_k_dense_replace", &DeepSeekConfig::first_k_dense_replace, 0, kMaxLayers, false},
    {"num_attention_heads", &DeepSeekConfig::num_attention_heads, 1, 1 << 16, true},
    {"q_lora_rank", &DeepSeekConfig::q_lora_rank, 1, kMaxDimension, false},
    {"kv_lora_rank", &DeepSeekConfig::kv_lora_rank, 1, kMaxDimension, true},
    {"qk_nope_head_dim", &DeepSeekConfig::qk_nope_head_dim, 1, 1 << 16, true},
    {"qk_rope_head_dim", &DeepSeekConfig::qk_rope_head_dim, 2, 1 << 16, true},
    {"v_head_dim", &DeepSeekConfig::v_head_dim, 1, 1 << 16, true},
    {"n_routed_experts", &DeepSeekConfig::n_routed_experts, 1, 1 << 16, true},
    {"num_experts_per_tok", &DeepSeekConfig::num_experts_per_tok, 1, 1 << 16, true},
    {"n_shared_experts", &DeepSeekConfig::n_shared_experts, 0, 1 << 8, false},
    {"max_position_embeddings", &DeepSeekConfig::max_position_embeddings, 1, kMaxContext, true},
};

absl::Status ReadOptional(const JsonObject& object, const char* key,
                          std::optional<double>& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Double(key));
  return absl::OkStatus();
}

absl::Status ReadOptional(const JsonObject& object, const char* key,
                          std::optional<int64_t>& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Int(key, 1, 1 << 16));
  return absl::OkStatus();
}

absl::Status ReadFlag(const JsonObject& object, const char* key, bool& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Bool(key));
  return absl::OkStatus();
}

// Newer configs call it rope_parameters and put rope_theta inside.
absl::Status ReadRope(const JsonObject& object, DeepSeekConfig& config) {
  if (object.Has("rope_theta")) {
    ODMOE_ASSIGN_OR_RETURN(config.rope_theta, object.Double("rope_theta"));
  }
  const char* key = object.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const JsonObject rope, object.Object(key));
  if (rope.Has("rope_theta")) {
    ODMOE_ASSIGN_OR_RETURN(config.rope_theta, rope.Double("rope_theta"));
  }
  const char* type_key = rope.Has("rope_type") ? "rope_type" : "type";
  if (!rope.Has(type_key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::string type, rope.String(type_key));
  if (type == "default") return absl::OkStatus();
  if (type != "yarn") return rope.Wrong(type_key, "'yarn' or 'default'");
  ODMOE_ASSIGN_OR_RETURN(config.yarn.factor, rope.Double("factor"));
  if (!(config.yarn.factor > 0.0)) return rope.Wrong("factor", "above 0");
  ODMOE_ASSIGN_OR_RETURN(config.yarn.original_max_position_embeddings,
                         rope.Int("original_max_position_embeddings", 1, kMaxContext));
  ODMOE_RETURN_IF_ERROR(ReadOptional(rope, "beta_fast", config.yarn.beta_fast));
  ODMOE_RETURN_IF_ERROR(ReadOptional(rope, "beta_slow", config.yarn.beta_slow));
  ODMOE_RETURN_IF_ERROR(ReadOptional(rope, "mscale_all_dim", config.yarn.mscale_all_dim));
  ODMOE_RETURN_IF_ERROR(
      ReadOptional(rope, "extrapolation_factor", config.yarn.extrapolation_factor));
  return ReadOptional(rope, rope.Has("attention_factor") ? "attention_factor" : "attn_factor",
                      config.yarn.attention_factor);
}

absl::Status ReadRouting(const JsonObject& object, DeepSeekConfig& config) {
  ODMOE_RETURN_IF_ERROR(ReadOptional(object, "n_group", config.n_group));
  ODMOE_RETURN_IF_ERROR(ReadOptional(object, "topk_group", config.topk_group));
  ODMOE_RETURN_IF_ERROR(
      ReadOptional(object, "routed_scaling_factor", config.routed_scaling_factor));
  ODMOE_RETURN_IF_ERROR(ReadFlag(object, "norm_topk_prob", config.norm_topk_prob));
  if (object.Has("scoring_func")) {
    ODMOE_ASSIGN_OR_RETURN(config.scoring_func, object.String("scoring_func"));
    if (*config.scoring_func != "sigmoid" && *config.scoring_func != "softmax") {
      return object.Wrong("scoring_func", "'sigmoid' or 'softmax'");
    }
  }
  if (object.Has("topk_method")) {
    ODMOE_ASSIGN_OR_RETURN(const std::string method, object.String("topk_method"));
    config.has_selection_bias = method == "noaux_tc";
  }
  if (config.num_experts_per_tok > config.n_routed_experts) {
    return object.Wrong("num_experts_per_tok", "at most n_routed_experts");
  }
  return absl::OkStatus();
}

absl::StatusOr<DeepSeekConfig> Read(const nlohmann::json& json, const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  DeepSeekConfig config;
  for (const IntSetting& setting : kSettings) {
    if (!setting.required && !object.Has(setting.key)) continue;
    ODMOE_ASSIGN_OR_RETURN(config.*setting.member,
                           object.Int(setting.key, setting.least, setting.most));
  }
  if (config.first_k_dense_replace > config.num_hidden_layers) {
    return object.Wrong("first_k_dense_replace", "at most num_hidden_layers");
  }
  if (object.Has("rms_norm_eps")) {
    ODMOE_ASSIGN_OR_RETURN(config.rms_norm_eps, object.Double("rms_norm_eps"));
  }
  ODMOE_RETURN_IF_ERROR(ReadFlag(object, "tie_word_embeddings", config.tie_word_embeddings));
  if (object.Has("moe_layer_freq")) {
    ODMOE_RETURN_IF_ERROR(object.Int("moe_layer_freq", 1, 1).status());
  }
  ODMOE_RETURN_IF_ERROR(ReadRouting(object, config));
  ODMOE_RETURN_IF_ERROR(ReadRope(object, config));
  return config;
}

}  // namespace

absl::StatusOr<DeepSeekConfig> ReadDeepSeekConfig(const nlohmann::json& config,
                                                  const std::string& where) {
  auto read = Read(config, where);
  // A setting that cannot be used is the checkpoint's author's choice, not a damaged file.
  if (absl::IsDataLoss(read.status())) {
    return absl::InvalidArgumentError(read.status().message());
  }
  return read;
}

}  // namespace odmoe
