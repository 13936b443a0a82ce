#include "converter/huggingface/weight_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "converter/bitnet/ternary_weights.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

constexpr int64_t kCodesPerWord = 8;  // of int4 packs, lowest bits first
constexpr int kCodeZero = 8;
constexpr int64_t kBlockElements = 32;

uint64_t StoredRowBytes(const CheckpointTensor& tensor) {
  const int64_t columns = tensor.shape.back();
  const int64_t words = (columns + kCodesPerWord - 1) / kCodesPerWord;
  return static_cast<uint64_t>(tensor.encoding == WeightEncoding::kInt4 ? words * 4 : columns);
}

// Rows as they are stored, of a quantized weight.
absl::Status ReadCodes(const CheckpointTensor& tensor, int64_t first, int64_t count,
                       std::vector<std::byte>& bytes) {
  const uint64_t row_bytes = StoredRowBytes(tensor);
  bytes.resize(row_bytes * static_cast<uint64_t>(count));
  return tensor.file->ReadTensor(*tensor.stored, row_bytes * static_cast<uint64_t>(first),
                                 absl::MakeSpan(bytes));
}

// The scales of rows [first, first + count) of the matrix of scales.
absl::Status ReadScales(const CheckpointTensor& tensor, int64_t first, int64_t count,
                        std::vector<float>& scales) {
  const WeightScales& s = tensor.scales;
  const uint64_t row_bytes =
      static_cast<uint64_t>(s.columns) * Info(s.dtype).block_bytes;
  std::vector<std::byte> stored(row_bytes * static_cast<uint64_t>(count));
  ODMOE_RETURN_IF_ERROR(s.file->ReadTensor(*s.stored, row_bytes * static_cast<uint64_t>(first),
                                           absl::MakeSpan(stored)));
  scales.resize(static_cast<size_t>(s.columns * count));
  return DecodeRow(s.dtype, stored.data(), absl::MakeSpan(scales));
}

// The row of scales for a row of the weight: blocks begin anew in each matrix of a stack.
int64_t ScaleRow(const CheckpointTensor& tensor, int64_t row) {
  const int64_t rows = tensor.shape[tensor.shape.size() - 2];
  const int64_t blocks = (rows + tensor.scales.block_rows - 1) / tensor.scales.block_rows;
  return row / rows * blocks + row % rows / tensor.scales.block_rows;
}

// A byte of each code, of `columns` codes.
void UnpackRow(const std::byte* words, int64_t columns, uint8_t* codes) {
  for (int64_t column = 0; column < columns; ++column) {
    const uint8_t pair = static_cast<uint8_t>(words[column / 2]);
    codes[column] = column % 2 == 0 ? pair & 0x0f : pair >> 4;
  }
}

std::array<float, 256> MakeE4M3Table() {
  std::array<float, 256> table;
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = (bits >> 3) & 0x0f, mantissa = bits & 0x07;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f,
                                             exponent - 7);
    if ((bits & 0x7f) == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
    table[static_cast<size_t>(bits)] = (bits & 0x80) != 0 ? -value : value;
  }
  return table;
}

}  // namespace

float E4M3ToF32(uint8_t bits) {
  static const std::array<float, 256> table = MakeE4M3Table();
  return table[bits];
}

absl::Status ReadStoredRows(const CheckpointTensor& tensor, int64_t columns, int64_t first,
                            int64_t count, std::vector<std::byte>& bytes) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, columns));
  bytes.resize(row_bytes * static_cast<uint64_t>(count));
  return tensor.file->ReadTensor(*tensor.stored, row_bytes * static_cast<uint64_t>(first),
                                 absl::MakeSpan(bytes));
}

absl::Status ReadWeightRows(const CheckpointTensor& tensor, int64_t columns, int64_t first,
                            int64_t count, std::vector<float>& values) {
  if (IsTernary(tensor)) return ReadTernaryValues(tensor, first, count, values);
  std::vector<std::byte> stored;
  values.resize(static_cast<size_t>(count * columns));
  if (tensor.encoding == WeightEncoding::kPlain) {
    ODMOE_RETURN_IF_ERROR(ReadStoredRows(tensor, columns, first, count, stored));
    return DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values));
  }
  ODMOE_RETURN_IF_ERROR(ReadCodes(tensor, first, count, stored));
  const int64_t first_scale = ScaleRow(tensor, first);
  std::vector<float> scales;
  ODMOE_RETURN_IF_ERROR(ReadScales(
      tensor, first_scale, ScaleRow(tensor, first + count - 1) - first_scale + 1, scales));
  std::vector<uint8_t> codes(static_cast<size_t>(columns));
  const uint64_t row_bytes = StoredRowBytes(tensor);
  for (int64_t row = 0; row < count; ++row) {
    const std::byte* of_row = stored.data() + row_bytes * static_cast<uint64_t>(row);
    const float* scale = scales.data() + (ScaleRow(tensor, first + row) - first_scale) *
                                             tensor.scales.columns;
    float* out = values.data() + row * columns;
    const bool int4 = tensor.encoding == WeightEncoding::kInt4;
    if (int4) UnpackRow(of_row, columns, codes.data());
    for (int64_t column = 0; column < columns; ++column) {
      const float code =
          int4 ? static_cast<float>(int{codes[static_cast<size_t>(column)]} - kCodeZero)
               : E4M3ToF32(static_cast<uint8_t>(of_row[column]));
      out[column] = code * scale[column / tensor.scales.block_columns];
    }
  }
  return absl::OkStatus();
}

absl::Status ReadQ4_0Rows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                          std::vector<std::byte>& bytes) {
  const int64_t columns = tensor.shape.back();
  std::vector<std::byte> stored;
  std::vector<float> scales;
  ODMOE_RETURN_IF_ERROR(ReadCodes(tensor, first, count, stored));
  ODMOE_RETURN_IF_ERROR(ReadScales(tensor, first, count, scales));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(DType::kQ4_0, columns));
  bytes.resize(row_bytes * static_cast<uint64_t>(count));
  std::vector<uint8_t> codes(static_cast<size_t>(columns));
  std::byte* out = bytes.data();
  for (int64_t row = 0; row < count; ++row) {
    UnpackRow(stored.data() + StoredRowBytes(tensor) * static_cast<uint64_t>(row), columns,
              codes.data());
    for (int64_t column = 0; column < columns; column += kBlockElements) {
      const uint16_t scale = F32ToF16(
          scales[static_cast<size_t>(row * tensor.scales.columns + column / kBlockElements)]);
      std::memcpy(out, &scale, sizeof(scale));
      out += sizeof(scale);
      const uint8_t* block = codes.data() + column;
      for (int64_t i = 0; i < kBlockElements / 2; ++i) {
        *out++ = static_cast<std::byte>(block[i] | block[i + kBlockElements / 2] << 4);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> FitsQ4_0(const CheckpointTensor& tensor) {
  const WeightScales& s = tensor.scales;
  if (tensor.encoding != WeightEncoding::kInt4 || s.block_columns != kBlockElements ||
      s.block_rows != 1 || tensor.shape.back() % kBlockElements != 0) {
    return false;
  }
  const int64_t rows_at_once = std::max<int64_t>(1, static_cast<int64_t>(kMiB) / s.columns);
  std::vector<float> scales;
  for (int64_t row = 0; row < tensor.shape[0]; row += rows_at_once) {
    ODMOE_RETURN_IF_ERROR(
        ReadScales(tensor, row, std::min(rows_at_once, tensor.shape[0] - row), scales));
    for (float scale : scales) {
      // Not a number, or infinite, is refused with the rest: it is no F16 that equals itself.
      if (!std::isfinite(scale) || F16ToF32(F32ToF16(scale)) != scale) return false;
    }
  }
  return true;
}

}  // namespace odmoe
