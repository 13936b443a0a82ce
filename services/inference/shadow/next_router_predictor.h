// Prediction without training: the coming layer's own router, applied early.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/inference/model/config.h"
#include "services/inference/model/expert_predictor.h"
#include "services/inference/model/router.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// A layer changes the residual stream by little, so the next layer's norm and router, applied to
// what this layer's attention has left, come near the choice they will make. Costs one product with
// the router a layer.
class NextRouterPredictor : public ExpertPredictor {
 public:
  // Experts to name a layer; see README.md for the measurement behind it.
  static int32_t DefaultWidth(const ModelConfig& config) { return config.routing.used; }

  // Names `width` experts a layer, at most as many as there are. The references must outlive it.
  NextRouterPredictor(const ModelConfig& config, const ModelWeights& weights, ComputePool& pool,
                      int32_t width);

  void Predict(int32_t layer, const float* hidden, std::vector<ExpertId>& experts) override;

 private:
  const ModelConfig& config_;
  const ModelWeights& weights_;
  ComputePool& pool_;
  Router router_;
  std::vector<float> normed_;   // [dim]
  std::vector<float> logits_;   // [experts]
  std::vector<int32_t> ranked_; // [width]
  Activations activations_;
};

}  // namespace odmoe
