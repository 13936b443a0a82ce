// A checkpoint's ternary weights: decoded once to -1, 0 and 1 and one scale, whatever they are
// stored as, and written from those in any format.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// Whether the weight is stored as, or to be rounded to, -1, 0 and 1 times a scale.
bool IsTernary(const CheckpointTensor& tensor);

// The formats that hold nothing but ternary weights without loss: tq1_0, tq2_0, i2_s, tl1, tl2.
bool IsTernaryFormat(DType dtype);

// What all codes of a ternary weight are multiplied by. Of packed ones it is stored. Of rounded
// ones it is max(mean|w|, 1e-5) over the whole weight, as BitNet's layers have it, and takes a pass
// over it, once; weights that have one magnitude beside zero already keep that, unless config.json
// says that they are to be rounded. Thread-safe. DATA_LOSS: a scale that is not a number above
// zero, or weights that are not numbers.
absl::StatusOr<float> ScaleOf(const CheckpointTensor& tensor);

// Rows [first, first + count) of a ternary weight as -1, 0 and 1: of rounded ones
// clamp(round(w / scale), -1, 1), halves to even.
// DATA_LOSS: the packs' fourth code, which stands for nothing.
absl::Status ReadTernaryRows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                             std::vector<int8_t>& codes);

// The same rows as numbers: codes times the scale.
absl::Status ReadTernaryValues(const CheckpointTensor& tensor, int64_t first, int64_t count,
                               std::vector<float>& values);

// Rows of `columns` codes in a format that has rows, RowBytes(dtype, columns) each, and checked:
// decoded again, they give the same codes. INVALID_ARGUMENT: rows that are not whole blocks.
// DATA_LOSS: the format cannot hold this scale.
absl::Status EncodeTernaryRows(DType dtype, absl::Span<const int8_t> codes, float scale,
                               int64_t columns, std::vector<std::byte>& out);

// What a ternary weight consists of.
struct TernaryShares {
  int64_t minus = 0, zeros = 0, plus = 0;  // how many weights are -1, 0 and 1
  float scale = 0.0f;
  double cosine = 1.0;  // between the weights as they are stored and as they are written

  int64_t count() const { return minus + zeros + plus; }
};

// Counts, with a pass over the weight; a plain one is counted as if it were to be rounded.
absl::StatusOr<TernaryShares> CountTernary(const CheckpointTensor& tensor);

// Makes a plain weight one to be rounded. A weight that is ternary already loses nothing.
void RoundToTernary(CheckpointTensor& tensor);

}  // namespace odmoe
