// A gated feed-forward network: a dense layer's, or the shared experts'.
#pragma once

#include <cstdint>
#include <vector>

#include "services/inference/kernels/activations.h"
#include "services/inference/kernels/compute_pool.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// out = down (silu(gate x) * up x), with its working memory. Not thread-safe.
class FeedForward {
 public:
  // For networks up to `max_ffn` wide and steps of up to `max_tokens` tokens.
  FeedForward(ComputePool& pool, int64_t max_ffn, int64_t max_tokens);

  // x [tokens, dim], out [tokens, dim].
  void Run(const FeedForwardWeights& weights, Activations& x, float* out);

 private:
  ComputePool& pool_;
  std::vector<float> gate_;  // [tokens, ffn]
  std::vector<float> up_;    // [tokens, ffn]
  Activations inner_;
};

}  // namespace odmoe
