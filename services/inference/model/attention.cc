#include "services/inference/model/attention.h"

#include <algorithm>
#include <limits>

#include "services/core/kernels/simd.h"
#include "services/inference/model/grouped_attention.h"
#include "services/inference/model/latent_attention.h"

namespace odmoe {

std::unique_ptr<AttentionStage> AttentionStage::Create(const ModelConfig& config, ComputePool& pool,
                                                       int64_t max_tokens) {
  if (config.attention == AttentionKind::kGrouped) {
    return std::make_unique<GroupedAttention>(config, pool, max_tokens);
  }
  return std::make_unique<LatentAttention>(config, pool, max_tokens);
}

void AttendOverCache(const HeadQuery& head, int64_t visible, int32_t layer, int64_t row_width,
                     KvCache& cache, float* out) {
  constexpr int64_t kStrip = KvCache::kBlockTokens;
  const SimdKernels& simd = Simd();
  const DotFunction dot = simd.find_dot(DType::kF32).dot;
  std::fill_n(out, head.value_width, 0.0f);
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  for (int64_t first = 0; first < visible; first += kStrip) {
    const int64_t count = std::min(kStrip, visible - first);
    const float* rows = cache.Row(layer, first);
    const std::byte* keys[kStrip];
    for (int64_t i = 0; i < count; ++i) {
      keys[i] = reinterpret_cast<const std::byte*>(rows + i * row_width + head.key_offset);
    }
    float scores[kStrip];
    dot(reinterpret_cast<const std::byte*>(head.query), head.key_width, keys, count, scores, 1);
    const float correction = simd.softmax_strip(scores, head.scale, count, &max, &sum);
    if (correction != 1.0f) simd.scale(correction, head.value_width, out);
    simd.weighted_rows(scores, count, rows + head.value_offset, row_width, head.value_width, out);
  }
  simd.scale(1.0f / sum, head.value_width, out);
}

}  // namespace odmoe
