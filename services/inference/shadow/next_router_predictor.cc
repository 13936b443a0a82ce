#include "services/inference/shadow/next_router_predictor.h"

#include <algorithm>

#include "services/core/kernels/mat_mul.h"
#include "services/core/kernels/simd.h"

namespace odmoe {

NextRouterPredictor::NextRouterPredictor(const ModelConfig& config, const ModelWeights& weights,
                                         ComputePool& pool, int32_t width)
    : config_(config),
      weights_(weights),
      pool_(pool),
      router_(config.routing),
      normed_(config.dim),
      logits_(config.routing.experts),
      ranked_(std::clamp(width, 0, config.routing.experts)) {}

void NextRouterPredictor::Predict(int32_t layer, const float* hidden,
                                  std::vector<ExpertId>& experts) {
  experts.clear();
  const int32_t next = layer + 1;
  if (next >= config_.layers || !config_.IsMoe(next)) return;
  const LayerWeights& weights = weights_.layers[next];
  Simd().rms_norm(hidden, weights.ffn_norm.data(), config_.norm_epsilon, config_.dim,
                  normed_.data());
  activations_.Set(normed_.data(), 1, config_.dim, config_.dim);
  MatMul(pool_, weights.router, activations_, logits_.data(), config_.routing.experts);
  const int32_t count = router_.Rank(absl::MakeSpan(logits_), weights.router_bias,
                                     static_cast<int32_t>(ranked_.size()), ranked_.data());
  for (int32_t i = 0; i < count; ++i) experts.push_back({next, ranked_[i]});
}

}  // namespace odmoe
