// config.json of a language model: the settings of all the families we convert.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// How positions are encoded: rope_parameters, or rope_scaling in older files.
struct RopeSettings {
  std::string type = "default";  // "default", "linear", "dynamic", "yarn", "llama3"
  std::optional<double> theta;
  std::optional<double> factor;  // above 0
  std::optional<int64_t> original_max_position_embeddings;
  std::optional<double> beta_fast, beta_slow, mscale_all_dim, extrapolation_factor,
      attention_factor;                                      // yarn
  std::optional<double> low_freq_factor, high_freq_factor;   // llama3
};

// Names as config.json has them; counts unless said otherwise, 0 where it has none.
struct CheckpointConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t first_k_dense_replace = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t q_lora_rank = 0;  // 0: queries are projected in one step
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t num_experts = 0;
  const char* num_experts_key = "n_routed_experts";  // as this file calls it
  int64_t num_experts_per_tok = 0;
  int64_t n_shared_experts = 0;
  int64_t max_position_embeddings = 0;
  std::optional<int64_t> n_group, topk_group;
  std::optional<std::string> scoring_func;  // "sigmoid", "softmax"
  std::optional<double> routed_scaling_factor;
  bool norm_topk_prob = false;
  bool has_selection_bias = false;          // topk_method "noaux_tc"
  bool tie_word_embeddings = false;
  std::optional<double> rms_norm_eps;
  RopeSettings rope;

  // Elements of an attention head.
  int64_t HeadWidth() const {
    if (head_dim > 0 || num_attention_heads == 0) return head_dim;
    return hidden_size / num_attention_heads;
  }
  int64_t KeyHeads() const {
    return num_key_value_heads > 0 ? num_key_value_heads : num_attention_heads;
  }
};

// Reads what is there; `required` must be. INVALID_ARGUMENT: a setting is missing, of the wrong
// type or out of range; `where` names the file.
absl::StatusOr<CheckpointConfig> ReadCheckpointConfig(const nlohmann::json& config,
                                                      const std::string& where,
                                            absl::Span<const char* const> required);

// INVALID_ARGUMENT: `key` is there and something else than `expected`, which `reason` explains.
absl::Status RequireSetting(const nlohmann::json& config, const std::string& where, const char* key,
                            const nlohmann::json& expected, absl::string_view reason);

}  // namespace odmoe
