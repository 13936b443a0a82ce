// A stored weight matrix, as kernels see it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "services/core/tensor/dtype.h"

namespace odmoe {

// [rows, columns], row-major, each row `row_bytes` long in the format `dtype`. A view: does not own
// the bytes. Rows need no alignment; files promise only multiples of 2.
struct WeightMatrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t row_bytes = 0;  // RowBytes(dtype, columns)
  const std::byte* data = nullptr;
  float scale = 1.0f;      // of formats that have one for a whole tensor: i2_s

  const std::byte* Row(int64_t r) const { return data + static_cast<uint64_t>(r) * row_bytes; }
  // Rows [first, first + count), as a matrix of their own.
  WeightMatrix Slice(int64_t first, int64_t count) const {
    return {dtype, count, columns, row_bytes, Row(first), scale};
  }
  uint64_t bytes() const { return static_cast<uint64_t>(rows) * row_bytes; }
};

}  // namespace odmoe
