#include "services/inference/model/latent_attention.h"

#include <cstring>

#include "services/core/kernels/simd.h"

namespace odmoe {

LatentAttention::LatentAttention(const ModelConfig& config, ComputePool& pool, int64_t max_tokens)
    : config_(config),
      pool_(pool),
      rope_(config.rope),
      score_scale_(config.attention_scale()),
      rope_angles_(max_tokens * config.rope.dimensions),
      normed_(max_tokens * config.dim),
      q_latent_(max_tokens * config.q_lora),
      kv_(max_tokens * config.cache_width()),
      queries_(max_tokens * config.heads * config.head_width()),
      absorbed_(max_tokens * config.heads * config.cache_width()),
      mixed_(max_tokens * config.heads * config.kv_lora),
      values_(max_tokens * config.heads * config.value),
      output_(max_tokens * config.dim),
      by_head_(max_tokens * config.heads) {
  products_.reserve(config.heads);
}

void LatentAttention::Begin(int64_t position, int64_t tokens) {
  position_ = position;
  tokens_ = tokens;
  for (int64_t t = 0; t < tokens; ++t) {
    rope_.Fill(position + t, rope_angles_.data() + t * config_.rope.dimensions);
  }
}

void LatentAttention::Run(const AttentionWeights& weights, int32_t layer, KvCache& cache,
                          float* hidden) {
  const SimdKernels& simd = Simd();
  const int64_t dim = config_.dim;
  for (int64_t t = 0; t < tokens_; ++t) {
    simd.rms_norm(hidden + t * dim, weights.norm.data(), config_.norm_epsilon, dim,
                  normed_.data() + t * dim);
  }
  ProjectQueries(weights);
  StoreKeys(weights, layer, cache);
  AbsorbKeys(weights);
  Attend(layer, cache);
  ExpandValues(weights);
  activations_.Set(values_.data(), tokens_, config_.heads * config_.value,
                   config_.heads * config_.value);
  MatMul(pool_, weights.output, activations_, output_.data(), dim);
  for (int64_t i = 0; i < tokens_ * dim; ++i) hidden[i] += output_[i];
}

// queries = normed W_q, or through the latent; and the compressed key beside them, since both read
// the same rows.
void LatentAttention::ProjectQueries(const AttentionWeights& weights) {
  const int64_t width = int64_t{config_.heads} * config_.head_width();
  activations_.Set(normed_.data(), tokens_, config_.dim, config_.dim);
  const bool direct = config_.q_lora == 0;
  const WeightMatrix& first = direct ? weights.q : weights.q_a;
  const Product products[] = {
      {first, activations_.Rows(FormFor(first.dtype)), tokens_,
       direct ? queries_.data() : q_latent_.data(), direct ? width : config_.q_lora},
      {weights.kv_a, activations_.Rows(FormFor(weights.kv_a.dtype)), tokens_, kv_.data(),
       config_.cache_width()}};
  MatMul(pool_, products);
  if (direct) return;
  for (int64_t t = 0; t < tokens_; ++t) {
    float* row = q_latent_.data() + t * config_.q_lora;
    Simd().rms_norm(row, weights.q_a_norm.data(), config_.norm_epsilon, config_.q_lora, row);
  }
  activations_.Set(q_latent_.data(), tokens_, config_.q_lora, config_.q_lora);
  MatMul(pool_, weights.q_b, activations_, queries_.data(), width);
}

void LatentAttention::StoreKeys(const AttentionWeights& weights, int32_t layer, KvCache& cache) {
  const int64_t rope = config_.rope.dimensions;
  for (int64_t t = 0; t < tokens_; ++t) {
    const float* compressed = kv_.data() + t * config_.cache_width();
    float* row = cache.Row(layer, position_ + t);
    Simd().rms_norm(compressed, weights.kv_a_norm.data(), config_.norm_epsilon, config_.kv_lora,
                    row);
    std::memcpy(row + config_.kv_lora, compressed + config_.kv_lora, rope * sizeof(float));
    Simd().rope(rope_angles_.data() + t * rope, rope, row + config_.kv_lora);
  }
}

const std::byte* const* LatentAttention::ByHead(Activations& x, ActivationForm form) {
  const std::byte* const* rows = x.Rows(form);
  for (int64_t t = 0; t < tokens_; ++t) {
    for (int32_t h = 0; h < config_.heads; ++h) {
      by_head_[h * tokens_ + t] = rows[t * config_.heads + h];
    }
  }
  return by_head_.data();
}

// absorbed = [k_b query_nope, rotated query_rope]: a head's query in the cache's own coordinates.
void LatentAttention::AbsorbKeys(const AttentionWeights& weights) {
  const int64_t heads = config_.heads;
  const int64_t width = config_.cache_width();
  const int64_t rope = config_.rope.dimensions;
  head_activations_.Set(queries_.data(), tokens_ * heads, config_.nope, config_.head_width());
  const std::byte* const* rows = ByHead(head_activations_, FormFor(weights.k_b.dtype));
  products_.clear();
  for (int64_t h = 0; h < heads; ++h) {
    products_.push_back({weights.k_b.Slice(h * config_.kv_lora, config_.kv_lora),
                         rows + h * tokens_, tokens_, absorbed_.data() + h * width, heads * width});
  }
  MatMul(pool_, products_);
  for (int64_t i = 0; i < tokens_ * heads; ++i) {
    float* rotated = absorbed_.data() + i * width + config_.kv_lora;
    std::memcpy(rotated, queries_.data() + i * config_.head_width() + config_.nope,
                rope * sizeof(float));
    Simd().rope(rope_angles_.data() + i / heads * rope, rope, rotated);
  }
}

// mixed = softmax(absorbed . cache rows) cache latents, over the tokens up to this one.
void LatentAttention::Attend(int32_t layer, KvCache& cache) {
  const int64_t heads = config_.heads;
  const int64_t width = config_.cache_width();
  AttendAllHeads(pool_, tokens_, heads, position_, width, [&](int64_t token, int64_t head) {
    const int64_t item = token * heads + head;
    AttendOverCache({.query = absorbed_.data() + item * width,
                     .key_width = width,
                     .value_width = config_.kv_lora,
                     .scale = score_scale_},
                    position_ + token + 1, layer, width, cache,
                    mixed_.data() + item * config_.kv_lora);
  });
}

// values = v_b mixed, per head.
void LatentAttention::ExpandValues(const AttentionWeights& weights) {
  const int64_t heads = config_.heads;
  head_activations_.Set(mixed_.data(), tokens_ * heads, config_.kv_lora, config_.kv_lora);
  const std::byte* const* rows = ByHead(head_activations_, FormFor(weights.v_b.dtype));
  products_.clear();
  for (int64_t h = 0; h < heads; ++h) {
    products_.push_back({weights.v_b.Slice(h * config_.value, config_.value), rows + h * tokens_,
                         tokens_, values_.data() + h * config_.value, heads * config_.value});
  }
  MatMul(pool_, products_);
}

}  // namespace odmoe
