#include "services/inference/model/transformer.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"
#include "services/core/kernels/mat_mul.h"
#include "services/core/kernels/simd.h"

namespace odmoe {

Transformer::Transformer(const ModelConfig& config, const ModelWeights& weights,
                         ExpertStore& store, ComputePool& pool, int64_t max_tokens,
                         const RemoteExperts& remote)
    : config_(config),
      weights_(weights),
      pool_(pool),
      max_tokens_(max_tokens),
      lookahead_(store),
      attention_(AttentionStage::Create(config, pool, max_tokens)),
      dense_(config, pool, config.dense_ffn, max_tokens),
      experts_(config, pool, store, remote, lookahead_, max_tokens),
      hidden_(max_tokens * config.dim),
      normed_(max_tokens * config.dim),
      output_(max_tokens * config.dim) {}

absl::Status Transformer::Forward(const Step& step) {
  ODMOE_RETURN_IF_ERROR(CheckStep(step));
  const auto tokens = static_cast<int64_t>(step.tokens.size());
  ODMOE_RETURN_IF_ERROR(step.cache->Reserve(step.cache->length() + tokens));
  ODMOE_RETURN_IF_ERROR(Embed(step.tokens));
  attention_->Begin(step.cache->length(), tokens);
  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    ODMOE_RETURN_IF_ERROR(step.CheckWanted());
    const LayerWeights& weights = weights_.layers[layer];
    attention_->Run(weights.attention, layer, *step.cache, hidden_.data());
    ODMOE_RETURN_IF_ERROR(RunFeedForward(step, weights, layer));
  }
  step.cache->Extend(tokens);
  return absl::OkStatus();
}

absl::Status Transformer::CheckStep(const Step& step) const {
  if (step.tokens.empty() || static_cast<int64_t>(step.tokens.size()) > max_tokens_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of ", step.tokens.size(), " tokens, expected 1 to ", max_tokens_));
  }
  for (const TokenId token : step.tokens) {
    if (token < 0 || token >= config_.vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is outside the vocabulary of ", config_.vocabulary));
    }
  }
  return absl::OkStatus();
}

absl::Status Transformer::Embed(absl::Span<const TokenId> tokens) {
  const WeightMatrix& embeddings = weights_.embeddings;
  for (size_t t = 0; t < tokens.size(); ++t) {
    ODMOE_RETURN_IF_ERROR(
        DecodeRow(embeddings.dtype, embeddings.Row(tokens[t]),
                  absl::MakeSpan(hidden_.data() + t * config_.dim, config_.dim)));
  }
  return absl::OkStatus();
}

absl::Status Transformer::RunFeedForward(const Step& step, const LayerWeights& weights,
                                         int32_t layer) {
  const auto tokens = static_cast<int64_t>(step.tokens.size());
  Normalize(weights.ffn_norm, 0, tokens);
  if (config_.IsMoe(layer)) {
    return experts_.Run(step, weights, layer, activations_, hidden_.data());
  }
  lookahead_.Predict(step, layer, hidden_.data());
  if (config_.int8_activations) RoundTo8Bits(tokens, config_.dim, normed_.data());
  dense_.Run(weights.ffn, activations_, output_.data());
  for (int64_t i = 0; i < tokens * config_.dim; ++i) hidden_[i] += output_[i];
  return absl::OkStatus();
}

void Transformer::Normalize(const std::vector<float>& weight, int64_t first, int64_t count) {
  const int64_t dim = config_.dim;
  for (int64_t t = 0; t < count; ++t) {
    Simd().rms_norm(hidden_.data() + (first + t) * dim, weight.data(), config_.norm_epsilon, dim,
                    normed_.data() + t * dim);
  }
  activations_.Set(normed_.data(), count, dim, dim);
}

void Transformer::Logits(int64_t first, int64_t count, float* out) {
  Normalize(weights_.output_norm, first, count);
  MatMul(pool_, weights_.output, activations_, out, config_.vocabulary);
}

}  // namespace odmoe
