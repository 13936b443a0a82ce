// Multi-head latent attention on the compressed cache (DeepSeek-V2 report, section 2.1): the key
// and value up-projections are absorbed into the query and the output, so that all heads attend to
// one cached row of kv_lora + rope floats a token.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/mat_mul.h"
#include "services/inference/model/attention.h"
#include "services/inference/model/config.h"
#include "services/inference/model/kv_cache.h"
#include "services/inference/model/rope_table.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// Of models that have AttentionKind::kLatent.
class LatentAttention : public AttentionStage {
 public:
  LatentAttention(const ModelConfig& config, ComputePool& pool, int64_t max_tokens);

  void Begin(int64_t position, int64_t tokens) override;
  void Run(const AttentionWeights& weights, int32_t layer, KvCache& cache, float* hidden) override;

 private:
  void ProjectQueries(const AttentionWeights& weights);
  void StoreKeys(const AttentionWeights& weights, int32_t layer, KvCache& cache);
  void AbsorbKeys(const AttentionWeights& weights);
  void Attend(int32_t layer, KvCache& cache);
  void ExpandValues(const AttentionWeights& weights);
  // Rows of `x`, whose row of token t and head h is t * heads + h, regrouped head by head.
  const std::byte* const* ByHead(Activations& x, ActivationForm form);

  const ModelConfig& config_;
  ComputePool& pool_;
  const RopeTable rope_;
  const float score_scale_;
  int64_t position_ = 0;
  int64_t tokens_ = 0;

  std::vector<float> rope_angles_;  // [tokens, rope]
  std::vector<float> normed_;       // [tokens, dim]
  std::vector<float> q_latent_;     // [tokens, q_lora]
  std::vector<float> kv_;           // [tokens, kv_lora + rope]
  std::vector<float> queries_;      // [tokens, heads, nope + rope]
  std::vector<float> absorbed_;     // [tokens, heads, kv_lora + rope]
  std::vector<float> mixed_;        // [tokens, heads, kv_lora]
  std::vector<float> values_;       // [tokens, heads, value]
  std::vector<float> output_;       // [tokens, dim]
  Activations activations_;
  Activations head_activations_;
  std::vector<const std::byte*> by_head_;  // [heads, tokens]
  std::vector<Product> products_;
};

}  // namespace odmoe
