// A gated feed-forward network: a dense layer's, or the shared experts'.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/inference/model/config.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// out = down norm (activation(gate x) * up x), with its working memory; the norm only where the
// weights have one. Not thread-safe.
class FeedForward {
 public:
  // For networks up to `max_ffn` wide and steps of up to `max_tokens` tokens. The references must
  // outlive it.
  FeedForward(const ModelConfig& config, ComputePool& pool, int64_t max_ffn, int64_t max_tokens);

  // x [tokens, dim], out [tokens, dim].
  void Run(const FeedForwardWeights& weights, Activations& x, float* out);

 private:
  const ModelConfig& config_;
  ComputePool& pool_;
  std::vector<float> gate_;  // [tokens, ffn]
  std::vector<float> up_;    // [tokens, ffn]
  Activations inner_;
};

}  // namespace odmoe
