#include "services/inference/model/grouped_attention.h"

#include <cstring>

#include "services/core/kernels/simd.h"

namespace odmoe {

GroupedAttention::GroupedAttention(const ModelConfig& config, ComputePool& pool, int64_t max_tokens)
    : config_(config),
      pool_(pool),
      rope_(config.rope),
      score_scale_(config.attention_scale()),
      rope_angles_(max_tokens * config.rope.dimensions),
      normed_(max_tokens * config.dim),
      queries_(max_tokens * config.heads * config.head_width()),
      keys_(max_tokens * config.kv_heads * config.head_width()),
      new_values_(max_tokens * config.kv_heads * config.value),
      mixed_(max_tokens * config.heads * config.value),
      output_(max_tokens * config.dim) {}

void GroupedAttention::Begin(int64_t position, int64_t tokens) {
  position_ = position;
  tokens_ = tokens;
  for (int64_t t = 0; t < tokens; ++t) {
    rope_.Fill(position + t, rope_angles_.data() + t * config_.rope.dimensions);
  }
}

void GroupedAttention::Run(const AttentionWeights& weights, int32_t layer, KvCache& cache,
                           float* hidden) {
  const int64_t dim = config_.dim;
  for (int64_t t = 0; t < tokens_; ++t) {
    Simd().rms_norm(hidden + t * dim, weights.norm.data(), config_.norm_epsilon, dim,
                    normed_.data() + t * dim);
  }
  Project(weights);
  StoreKeysAndValues(layer, cache);
  Attend(layer, cache);
  ProjectOutput(weights, hidden);
}

void GroupedAttention::Project(const AttentionWeights& weights) {
  if (config_.int8_activations) RoundTo8Bits(tokens_, config_.dim, normed_.data());
  activations_.Set(normed_.data(), tokens_, config_.dim, config_.dim);
  const auto rows = [&](const WeightMatrix& w) { return activations_.Rows(FormFor(w.dtype)); };
  const Product products[] = {
      {weights.q, rows(weights.q), tokens_, queries_.data(), weights.q.rows},
      {weights.k, rows(weights.k), tokens_, keys_.data(), weights.k.rows},
      {weights.v, rows(weights.v), tokens_, new_values_.data(), weights.v.rows}};
  MatMul(pool_, products);
}

void GroupedAttention::Rotate(int64_t token, int64_t heads, float* rows) const {
  const int64_t rope = config_.rope.dimensions;
  const float* angles = rope_angles_.data() + token * rope;
  const auto rotate = config_.rope.halves ? Simd().rope_halves : Simd().rope;
  for (int64_t h = 0; h < heads; ++h) rotate(angles, rope, rows + h * config_.head_width());
}

void GroupedAttention::StoreKeysAndValues(int32_t layer, KvCache& cache) {
  const int64_t key_width = int64_t{config_.kv_heads} * config_.head_width();
  const int64_t value_width = int64_t{config_.kv_heads} * config_.value;
  for (int64_t t = 0; t < tokens_; ++t) {
    Rotate(t, config_.heads, queries_.data() + t * config_.heads * config_.head_width());
    float* row = cache.Row(layer, position_ + t);
    std::memcpy(row, keys_.data() + t * key_width, key_width * sizeof(float));
    Rotate(t, config_.kv_heads, row);
    std::memcpy(row + key_width, new_values_.data() + t * value_width, value_width * sizeof(float));
  }
}

void GroupedAttention::Attend(int32_t layer, KvCache& cache) {
  const int64_t heads = config_.heads;
  const int64_t heads_per_key = heads / config_.kv_heads;
  const int64_t width = config_.cache_width();
  const int64_t values_at = int64_t{config_.kv_heads} * config_.head_width();
  AttendAllHeads(pool_, tokens_, heads, position_, width, [&](int64_t token, int64_t head) {
    const int64_t item = token * heads + head;
    const int64_t shared = head / heads_per_key;
    AttendOverCache({.query = queries_.data() + item * config_.head_width(),
                     .key_offset = shared * config_.head_width(),
                     .key_width = config_.head_width(),
                     .value_offset = values_at + shared * config_.value,
                     .value_width = config_.value,
                     .scale = score_scale_},
                    position_ + token + 1, layer, width, cache,
                    mixed_.data() + item * config_.value);
  });
}

void GroupedAttention::ProjectOutput(const AttentionWeights& weights, float* hidden) {
  const int64_t width = int64_t{config_.heads} * config_.value;
  for (int64_t t = 0; t < tokens_ && !weights.sub_norm.empty(); ++t) {
    float* row = mixed_.data() + t * width;
    Simd().rms_norm(row, weights.sub_norm.data(), config_.norm_epsilon, width, row);
  }
  if (config_.int8_activations) RoundTo8Bits(tokens_, width, mixed_.data());
  activations_.Set(mixed_.data(), tokens_, width, width);
  MatMul(pool_, weights.output, activations_, output_.data(), config_.dim);
  for (int64_t i = 0; i < tokens_ * config_.dim; ++i) hidden[i] += output_[i];
}

}  // namespace odmoe
