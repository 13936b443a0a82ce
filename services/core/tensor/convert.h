// Conversion between float and the stored formats, element by element and row by row. Scalar code
// that defines the values; the converter's bytes and the kernels' tests rest on it. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// IEEE binary16, round to nearest even; overflow gives infinity, NaN stays NaN.
uint16_t F32ToF16(float value);
float F16ToF32(uint16_t bits);

// bfloat16, round to nearest even, NaN made quiet (as ggml).
uint16_t F32ToBF16(float value);
float BF16ToF32(uint16_t bits);

// One Q8_0 block: 32 weights share a scale d = max|x| / 127; x is stored as round(x / d).
struct BlockQ8_0 {
  static constexpr int kElements = 32;
  uint16_t d;  // f16 bits
  int8_t qs[kElements];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Encodes `values` (a whole number of blocks) at `out`, RowBytes(dtype, values.size()) long.
// Formats: f32, f16, bf16, q8_0; byte-identical to ggml's reference.
// UNIMPLEMENTED: another format. INVALID_ARGUMENT: not whole blocks.
absl::Status EncodeRow(DType dtype, absl::Span<const float> values, std::byte* out);

// The values of a row, bit-equal to ggml's reference for any bytes. Reads exactly RowBytes(dtype,
// values.size()) from `in`, which need not be aligned.
// UNIMPLEMENTED names a format that has no decoder. INVALID_ARGUMENT: not whole blocks.
absl::Status DecodeRow(DType dtype, const std::byte* in, absl::Span<float> values);

}  // namespace odmoe
