// A stored weight matrix, as kernels see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "services/core/tensor/dtype.h"

namespace odmoe {

class InputObserver;

// A tensor whose products somebody is told of; see services/core/generation/input_observer.h.
struct ObservedTensor {
  InputObserver* observer = nullptr;
  std::string name;      // the tensor's GGUF name
  int64_t matrices = 1;  // that it stacks: experts or heads
  bool routed = false;   // experts
};

// [rows, columns], row-major, each row `row_bytes` long in the format `dtype`. A view: does not own
// the bytes. Rows need no alignment; files promise only multiples of 2.
struct WeightMatrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t row_bytes = 0;  // RowBytes(dtype, columns)
  const std::byte* data = nullptr;
  float scale = 1.0f;      // of formats that have one for a whole tensor: i2_s
  const ObservedTensor* observed = nullptr;  // null: nobody wants to know
  int64_t matrix = 0;                        // of those the observed tensor stacks

  const std::byte* Row(int64_t r) const { return data + static_cast<uint64_t>(r) * row_bytes; }
  // Rows [first, first + count), as a matrix of their own. Of an observed tensor, one it stacks.
  WeightMatrix Slice(int64_t first, int64_t count) const {
    return {dtype, count, columns, row_bytes, Row(first), scale, observed, first / count};
  }
  uint64_t bytes() const { return static_cast<uint64_t>(rows) * row_bytes; }
};

}  // namespace odmoe
