// GGUF models of every form experts come in, with random bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/core/formats/gguf_writer.h"

namespace odmoe {

enum class ExpertForm { kStacked, kFused, kSingle };

struct GgufMakerOptions {
  uint32_t seed = 1;
  uint32_t version = 3;
  uint32_t alignment = 0;       // 0: no key, so 32
  ExpertForm form = ExpertForm::kStacked;
  DType w1 = DType::kF16, w2 = DType::kF16;  // fused gate and up have one format; w3 has w1's
  bool biases = false;
  bool tied = false;            // no output.weight
  int32_t dense_layers = 1;
  int32_t moe_layers = 2;
  int32_t experts = 3;
  // The file's end: 0 nothing behind the last tensor, 1 padding, 2 some bytes more.
  int tail = 1;
  bool dirty_padding = false;   // padding that is not zero
};

// The file's bytes.
std::string MakeGguf(const GgufMakerOptions& options);
// The same model in `shards` files' bytes, keys and tensors dealt as gguf-split does: all keys and
// no tensor in the first where `empty_first`.
std::vector<std::string> MakeGgufShards(const GgufMakerOptions& options, int shards,
                                        bool empty_first = false);

// Bytes of a file of this header, its tensors' data from `seed`.
std::string EncodeGguf(GgufHeader header, const GgufMakerOptions& options);

}  // namespace odmoe
