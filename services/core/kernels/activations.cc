#include "services/core/kernels/activations.h"

#include <cassert>

namespace odmoe {

void Activations::Set(const float* data, int64_t rows, int64_t columns, int64_t stride) {
  data_ = data;
  rows_ = rows;
  columns_ = columns;
  stride_ = stride;
  quantized_ = false;
  f32_.resize(rows);
  for (int64_t i = 0; i < rows; ++i) {
    f32_[i] = reinterpret_cast<const std::byte*>(data + i * stride);
  }
}

const std::byte* const* Activations::Rows(ActivationForm form) {
  if (form == ActivationForm::kF32) return f32_.data();
  assert(columns_ % BlockQ8Activation::kElements == 0);
  if (!quantized_) {
    const int64_t row_blocks = columns_ / BlockQ8Activation::kElements;
    blocks_.resize(rows_ * row_blocks);
    q8_.resize(rows_);
    for (int64_t i = 0; i < rows_; ++i) {
      BlockQ8Activation* row = blocks_.data() + i * row_blocks;
      Simd().quantize_q8(data_ + i * stride_, columns_, row);
      q8_[i] = reinterpret_cast<const std::byte*>(row);
    }
    quantized_ = true;
  }
  return q8_.data();
}

void RoundTo8Bits(int64_t rows, int64_t columns, float* data) {
  for (int64_t r = 0; r < rows; ++r) Simd().round_to_8_bits(columns, data + r * columns);
}

}  // namespace odmoe
