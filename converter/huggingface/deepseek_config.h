// config.json of the DeepSeek-V2/V3 family.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// What GGUF calls the family.
inline constexpr char kDeepSeekArchitecture[] = "deepseek2";

// Names as config.json has them; counts unless said otherwise.
struct DeepSeekConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t first_k_dense_replace = 0;
  int64_t num_attention_heads = 0;
  int64_t q_lora_rank = 0;  // 0: queries are projected in one step
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_shared_experts = 0;
  int64_t max_position_embeddings = 0;
  std::optional<int64_t> n_group, topk_group;
  std::optional<std::string> scoring_func;       // "sigmoid", "softmax"
  std::optional<double> routed_scaling_factor;
  bool norm_topk_prob = false;
  bool has_selection_bias = false;               // topk_method "noaux_tc"
  bool tie_word_embeddings = false;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;

  // rope_scaling of type yarn; factor 0 where there is none.
  struct Yarn {
    double factor = 0.0;
    int64_t original_max_position_embeddings = 0;
    std::optional<double> beta_fast, beta_slow, mscale_all_dim, extrapolation_factor,
        attention_factor;
  } yarn;
};

// INVALID_ARGUMENT: a setting is missing, of the wrong type or out of range; `where` names the file.
absl::StatusOr<DeepSeekConfig> ReadDeepSeekConfig(const nlohmann::json& config,
                                                  const std::string& where);

// Sets the architecture's keys, in the order the reference converter writes them.
void AddDeepSeekKeys(const DeepSeekConfig& config, uint32_t file_type, GgufMetadata& metadata);

}  // namespace odmoe
