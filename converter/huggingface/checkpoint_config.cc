#include "converter/huggingface/checkpoint_config.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

// No model is near these; they keep every product of two of them inside 64 bits.
constexpr int64_t kMaxDimension = 1 << 24;
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxContext = int64_t{1} << 31;

struct IntSetting {
  const char* key;
  int64_t CheckpointConfig::*member;
  int64_t least;
  int64_t most;
};

constexpr IntSetting kSettings[] = {
    {"vocab_size", &CheckpointConfig::vocab_size, 1, kMaxDimension},
    {"hidden_size", &CheckpointConfig::hidden_size, 1, kMaxDimension},
    {"intermediate_size", &CheckpointConfig::intermediate_size, 1, kMaxDimension},
    {"moe_intermediate_size", &CheckpointConfig::moe_intermediate_size, 1, kMaxDimension},
    {"shared_expert_intermediate_size", &CheckpointConfig::shared_expert_intermediate_size, 1,
     kMaxDimension},
    {"num_hidden_layers", &CheckpointConfig::num_hidden_layers, 1, kMaxLayers},
    {"first_k_dense_replace", &CheckpointConfig::first_k_dense_replace, 0, kMaxLayers},
    {"num_attention_heads", &CheckpointConfig::num_attention_heads, 1, kMaxHeads},
    {"num_key_value_heads", &CheckpointConfig::num_key_value_heads, 1, kMaxHeads},
    {"head_dim", &CheckpointConfig::head_dim, 1, kMaxHeads},
    {"q_lora_rank", &CheckpointConfig::q_lora_rank, 1, kMaxDimension},
    {"kv_lora_rank", &CheckpointConfig::kv_lora_rank, 1, kMaxDimension},
    {"qk_nope_head_dim", &CheckpointConfig::qk_nope_head_dim, 1, kMaxHeads},
    {"qk_rope_head_dim", &CheckpointConfig::qk_rope_head_dim, 2, kMaxHeads},
    {"v_head_dim", &CheckpointConfig::v_head_dim, 1, kMaxHeads},
    {"num_experts_per_tok", &CheckpointConfig::num_experts_per_tok, 1, 1 << 16},
    {"n_shared_experts", &CheckpointConfig::n_shared_experts, 0, 1 << 8},
    {"max_position_embeddings", &CheckpointConfig::max_position_embeddings, 1, kMaxContext},
};

// What the families call the number of experts, in the order the reference converter looks.
constexpr const char* kExpertCountKeys[] = {"num_local_experts", "num_experts", "n_routed_experts"};

absl::Status ReadOptional(const JsonObject& object, const char* key,
                          std::optional<double>& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Double(key));
  return absl::OkStatus();
}

absl::Status ReadOptional(const JsonObject& object, const char* key, int64_t most,
                          std::optional<int64_t>& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Int(key, 1, most));
  return absl::OkStatus();
}

absl::Status ReadFlag(const JsonObject& object, const char* key, bool& value) {
  if (!object.Has(key)) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(value, object.Bool(key));
  return absl::OkStatus();
}

absl::Status ReadRopeScaling(const JsonObject& scaling, RopeSettings& rope) {
  const char* type_key = scaling.Has("rope_type") ? "rope_type" : "type";
  if (scaling.Has(type_key)) {
    ODMOE_ASSIGN_OR_RETURN(rope.type, scaling.String(type_key));
  }
  constexpr const char* kTypes[] = {"default", "linear", "dynamic", "yarn", "llama3"};
  if (std::find(std::begin(kTypes), std::end(kTypes), rope.type) == std::end(kTypes)) {
    return scaling.Wrong(type_key, "'default', 'linear', 'dynamic', 'yarn' or 'llama3'");
  }
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "rope_theta", rope.theta));
  if (rope.type == "yarn" || rope.type == "linear") {
    ODMOE_RETURN_IF_ERROR(scaling.Double("factor").status());
  }
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "factor", rope.factor));
  if (rope.factor.has_value() && !(*rope.factor > 0.0)) return scaling.Wrong("factor", "above 0");
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "original_max_position_embeddings", kMaxContext,
                                     rope.original_max_position_embeddings));
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "beta_fast", rope.beta_fast));
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "beta_slow", rope.beta_slow));
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "mscale_all_dim", rope.mscale_all_dim));
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "extrapolation_factor", rope.extrapolation_factor));
  ODMOE_RETURN_IF_ERROR(ReadOptional(
      scaling, scaling.Has("attention_factor") ? "attention_factor" : "attn_factor",
      rope.attention_factor));
  ODMOE_RETURN_IF_ERROR(ReadOptional(scaling, "low_freq_factor", rope.low_freq_factor));
  return ReadOptional(scaling, "high_freq_factor", rope.high_freq_factor);
}

// Newer files call it rope_parameters and put rope_theta inside.
absl::Status ReadRope(const JsonObject& object, RopeSettings& rope) {
  const bool newer = object.value().contains("rope_parameters");
  const char* key = newer ? "rope_parameters" : "rope_scaling";
  if (object.Has(key)) {
    ODMOE_ASSIGN_OR_RETURN(const JsonObject scaling, object.Object(key));
    ODMOE_RETURN_IF_ERROR(ReadRopeScaling(scaling, rope));
  }
  if (!rope.theta.has_value()) {
    ODMOE_RETURN_IF_ERROR(ReadOptional(object, "rope_theta", rope.theta));
  }
  if (!rope.original_max_position_embeddings.has_value()) {
    ODMOE_RETURN_IF_ERROR(ReadOptional(object, "original_max_position_embeddings", kMaxContext,
                                       rope.original_max_position_embeddings));
  }
  if (rope.type == "yarn" && !rope.original_max_position_embeddings.has_value()) {
    return object.Wrong(key, "with an original_max_position_embeddings");
  }
  return absl::OkStatus();
}

absl::Status ReadRouting(const JsonObject& object, CheckpointConfig& config) {
  for (const char* key : kExpertCountKeys) {
    if (!object.Has(key)) continue;
    config.num_experts_key = key;
    ODMOE_ASSIGN_OR_RETURN(config.num_experts, object.Int(key, 1, 1 << 16));
    break;
  }
  ODMOE_RETURN_IF_ERROR(ReadOptional(object, "n_group", 1 << 16, config.n_group));
  ODMOE_RETURN_IF_ERROR(ReadOptional(object, "topk_group", 1 << 16, config.topk_group));
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
  if (config.num_experts > 0 && config.num_experts_per_tok > config.num_experts) {
    return object.Wrong("num_experts_per_tok",
                        absl::StrCat("at most ", config.num_experts_key));
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(const JsonObject& object, const CheckpointConfig& config) {
  const int64_t heads = config.num_attention_heads;
  if (config.kv_lora_rank > 0) return absl::OkStatus();  // its heads share one latent
  if (config.num_key_value_heads > 0 && heads % config.num_key_value_heads != 0) {
    return object.Wrong("num_attention_heads", "a multiple of num_key_value_heads");
  }
  if (config.head_dim == 0 && heads > 0 &&
      config.hidden_size % heads != 0) {
    return object.Wrong("hidden_size",
                        "a multiple of num_attention_heads, there being no head_dim");
  }
  return absl::OkStatus();
}

absl::StatusOr<CheckpointConfig> Read(const nlohmann::json& json, const std::string& where,
                                 absl::Span<const char* const> required) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  CheckpointConfig config;
  for (const IntSetting& setting : kSettings) {
    const bool needed = std::find_if(required.begin(), required.end(), [&](const char* key) {
                          return absl::string_view(key) == setting.key;
                        }) != required.end();
    if (!needed && !object.Has(setting.key)) continue;
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
  ODMOE_RETURN_IF_ERROR(ReadRouting(object, config));
  for (const char* key : kExpertCountKeys) {
    const bool needed = std::find_if(required.begin(), required.end(), [&](const char* other) {
                          return absl::string_view(key) == other;
                        }) != required.end();
    if (needed && config.num_experts == 0) return object.Wrong(key, "a number of experts");
  }
  ODMOE_RETURN_IF_ERROR(CheckHeads(object, config));
  ODMOE_RETURN_IF_ERROR(ReadRope(object, config.rope));
  return config;
}

}  // namespace

absl::StatusOr<CheckpointConfig> ReadCheckpointConfig(const nlohmann::json& config,
                                                      const std::string& where,
                                            absl::Span<const char* const> required) {
  auto read = Read(config, where, required);
  // A setting that cannot be used is the checkpoint's author's choice, not a damaged file.
  if (absl::IsDataLoss(read.status())) {
    return absl::InvalidArgumentError(read.status().message());
  }
  return read;
}

absl::Status RequireSetting(const nlohmann::json& config, const std::string& where, const char* key,
                            const nlohmann::json& expected, absl::string_view reason) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null() || *found == expected) return absl::OkStatus();
  const auto text = [](const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  return absl::InvalidArgumentError(absl::StrCat(where, ": '", key, "' should be ", text(expected),
                                                 " and is ", text(*found), ": ", reason));
}

}  // namespace odmoe
