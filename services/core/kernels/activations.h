// Activation rows in whatever form the weights at hand ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/core/kernels/simd.h"

namespace odmoe {

// Rows of floats, and their other forms, each made on first use and kept until the next Set: a row
// that meets several matrices is quantized once. Not thread-safe; call Rows before sharing work.
class Activations {
 public:
  // Points at `rows` rows of `columns` floats, row i at data + i * stride. Does not own them; they
  // must not change until the next Set. Allocates only when larger than ever before.
  void Set(const float* data, int64_t rows, int64_t columns, int64_t stride);

  // One pointer a row. kQ8 requires whole blocks of 32 columns. Valid until the next Set.
  const std::byte* const* Rows(ActivationForm form);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  const float* data_ = nullptr;
  int64_t stride_ = 0;
  bool quantized_ = false;
  std::vector<const std::byte*> f32_;
  std::vector<const std::byte*> q8_;
  std::vector<BlockQ8Activation> blocks_;
};

// Rounds each of `rows` rows of `columns` floats, one behind the other, to the 255 multiples of
// max|x| / 127 that fit it, as BitNet's layers see their input (b1.58 2B4T report, section 2;
// Hugging Face's ActQuant): x = round(x * s) / s, halves to even, with s = 127 / max(max|x|, 1e-5).
void RoundTo8Bits(int64_t rows, int64_t columns, float* data);

}  // namespace odmoe
