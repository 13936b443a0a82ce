#include "services/inference/model/feed_forward.h"

#include "services/core/kernels/mat_mul.h"
#include "services/core/kernels/simd.h"

namespace odmoe {

FeedForward::FeedForward(const ModelConfig& config, ComputePool& pool, int64_t max_ffn,
                         int64_t max_tokens)
    : config_(config), pool_(pool), gate_(max_ffn * max_tokens), up_(max_ffn * max_tokens) {}

void FeedForward::Run(const FeedForwardWeights& weights, Activations& x, float* out) {
  const int64_t ffn = weights.gate.rows;
  const int64_t tokens = x.rows();
  const Product products[] = {
      {weights.gate, x.Rows(FormFor(weights.gate.dtype)), tokens, gate_.data(), ffn},
      {weights.up, x.Rows(FormFor(weights.up.dtype)), tokens, up_.data(), ffn}};
  MatMul(pool_, products);
  const auto gate = config_.activation == Activation::kSilu ? Simd().silu_gate
                                                            : Simd().relu_squared_gate;
  gate(gate_.data(), up_.data(), tokens * ffn, gate_.data());
  for (int64_t t = 0; t < tokens && !weights.sub_norm.empty(); ++t) {
    float* row = gate_.data() + t * ffn;
    Simd().rms_norm(row, weights.sub_norm.data(), config_.norm_epsilon, ffn, row);
  }
  if (config_.int8_activations) RoundTo8Bits(tokens, ffn, gate_.data());
  inner_.Set(gate_.data(), tokens, ffn, ffn);
  MatMul(pool_, weights.down, inner_, out, weights.down.rows);
}

}  // namespace odmoe
