// One sequence's attention memory: what attention keeps of the tokens so far.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "services/core/io/aligned_buffer.h"
#include "services/inference/model/config.h"

namespace odmoe {

// Per token and layer, one row of config.cache_width() floats: of latent attention the normalized
// latent [kv_lora] and the rotated shared key [rope], of grouped heads the rotated keys
// [kv_heads, key] and the values [kv_heads, value]. Memory is taken in blocks of kBlockTokens as
// the sequence grows.
// Not thread-safe; a step that reads it may do so from several threads.
class KvCache {
 public:
  static constexpr int64_t kBlockTokens = 64;

  explicit KvCache(const ModelConfig& config);

  // Bytes that `tokens` tokens take.
  static uint64_t BytesFor(const ModelConfig& config, int64_t tokens);

  // Makes room for `tokens` tokens in all. RESOURCE_EXHAUSTED: no memory.
  absl::Status Reserve(int64_t tokens);

  // The row of a token for which there is room. Rows of one block and layer are adjacent.
  float* Row(int32_t layer, int64_t position) {
    return BlockData(position / kBlockTokens) +
           (layer * kBlockTokens + position % kBlockTokens) * width_;
  }

  // Tokens whose rows are complete in every layer. A step that fails leaves it as it was.
  int64_t length() const { return length_; }
  void Extend(int64_t tokens) { length_ += tokens; }

 private:
  float* BlockData(int64_t block) { return reinterpret_cast<float*>(blocks_[block].data()); }

  int64_t layers_;
  int64_t width_;
  int64_t length_ = 0;
  std::vector<AlignedBuffer> blocks_;
};

}  // namespace odmoe
