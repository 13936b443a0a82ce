// Grouped-query attention (Ainslie et al., arXiv 2305.13245): several query heads share a key and a
// value head. With BitNet's additions where a model has them: a norm before the output projection,
// and activations rounded to 8 bits before every projection.
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

// Of models that have AttentionKind::kGrouped. A cache row is all rotated keys, then all values.
class GroupedAttention : public AttentionStage {
 public:
  GroupedAttention(const ModelConfig& config, ComputePool& pool, int64_t max_tokens);

  void Begin(int64_t position, int64_t tokens) override;
  void Run(const AttentionWeights& weights, int32_t layer, KvCache& cache, float* hidden) override;

 private:
  void Project(const AttentionWeights& weights);
  void StoreKeysAndValues(int32_t layer, KvCache& cache);
  void Attend(int32_t layer, KvCache& cache);
  void ProjectOutput(const AttentionWeights& weights, float* hidden);
  // `heads` heads' rows, one after the other, turned to the place of the step's token.
  void Rotate(int64_t token, int64_t heads, float* rows) const;

  const ModelConfig& config_;
  ComputePool& pool_;
  const RopeTable rope_;
  const float score_scale_;
  int64_t position_ = 0;
  int64_t tokens_ = 0;

  std::vector<float> rope_angles_;  // [tokens, rope]
  std::vector<float> normed_;       // [tokens, dim]
  std::vector<float> queries_;      // [tokens, heads, key]
  std::vector<float> keys_;         // [tokens, kv_heads, key]
  std::vector<float> new_values_;   // [tokens, kv_heads, value]
  std::vector<float> mixed_;        // [tokens, heads, value]
  std::vector<float> output_;       // [tokens, dim]
  Activations activations_;
};

}  // namespace odmoe
