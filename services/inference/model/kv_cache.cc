#include "services/inference/model/kv_cache.h"

#include <utility>

#include "services/core/base/status_macros.h"

namespace odmoe {

KvCache::KvCache(const ModelConfig& config)
    : layers_(config.layers), width_(config.cache_width()) {}

uint64_t KvCache::BytesFor(const ModelConfig& config, int64_t tokens) {
  const uint64_t blocks = (static_cast<uint64_t>(tokens) + kBlockTokens - 1) / kBlockTokens;
  return blocks * kBlockTokens * static_cast<uint64_t>(config.layers) *
         static_cast<uint64_t>(config.cache_width()) * sizeof(float);
}

absl::Status KvCache::Reserve(int64_t tokens) {
  while (static_cast<int64_t>(blocks_.size()) * kBlockTokens < tokens) {
    ODMOE_ASSIGN_OR_RETURN(
        AlignedBuffer block,
        AlignedBuffer::Allocate(layers_ * kBlockTokens * width_ * sizeof(float), 64));
    blocks_.push_back(std::move(block));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
