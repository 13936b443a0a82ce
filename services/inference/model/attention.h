// The attention of a step: an interface, since models attend in different ways, and what the ways
// share. latent_attention.h and grouped_attention.h have the two there are.
#pragma once

#include <cstdint>
#include <memory>

#include "services/core/kernels/compute_pool.h"
#include "services/inference/model/config.h"
#include "services/inference/model/kv_cache.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// The attention of a step, layer after layer, with its working memory. Not thread-safe.
class AttentionStage {
 public:
  // By config.attention. At most `max_tokens` tokens a step. The references must outlive the stage.
  static std::unique_ptr<AttentionStage> Create(const ModelConfig& config, ComputePool& pool,
                                                int64_t max_tokens);
  virtual ~AttentionStage() = default;

  // Starts a step of `tokens` tokens, the first at `position`.
  virtual void Begin(int64_t position, int64_t tokens) = 0;

  // hidden[t] += attention(hidden[t]) for the step's tokens, hidden [tokens, dim]. Writes their
  // cache rows of this layer; those of earlier positions must be there.
  virtual void Run(const AttentionWeights& weights, int32_t layer, KvCache& cache,
                   float* hidden) = 0;
};

// One head's look at the cache: key and value are columns of its rows.
struct HeadQuery {
  const float* query = nullptr;  // [key_width]
  int64_t key_offset = 0;
  int64_t key_width = 0;
  int64_t value_offset = 0;
  int64_t value_width = 0;
  float scale = 1.0f;  // on the scores
};

// out [value_width] = softmax(scale * query . keys) values over the first `visible` tokens of the
// cache, a block of it at a time. The blocks' borders are fixed positions, so neither the step's
// size nor what else runs changes the order of a sum.
void AttendOverCache(const HeadQuery& head, int64_t visible, int32_t layer, int64_t row_width,
                     KvCache& cache, float* out);

// Runs AttendHead(token, head) for all of a step, shared out to the pool's threads. `row_width`: of
// the cache, which says how much work a token is.
template <typename AttendHead>
void AttendAllHeads(ComputePool& pool, int64_t tokens, int64_t heads, int64_t position,
                    int64_t row_width, const AttendHead& attend_head) {
  // About as much work as MatMul hands out at a time.
  constexpr int64_t kGrainOperations = 1 << 16;
  const int64_t operations = 2 * row_width * (position + tokens);
  const int64_t grain = kGrainOperations / operations > 1 ? kGrainOperations / operations : 1;
  pool.ParallelFor(tokens * heads, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attend_head(i / heads, i % heads);
  });
}

}  // namespace odmoe
