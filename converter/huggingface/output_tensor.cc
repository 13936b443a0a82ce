#include "converter/huggingface/output_tensor.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "converter/bitnet/ternary_weights.h"
#include "converter/bitnet/tiles.h"
#include "converter/huggingface/weight_rows.h"
#include "converter/quantize/encode.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/i2_s.h"

namespace odmoe {
namespace {

using Sink = std::function<absl::Status(absl::Span<const std::byte>)>;

constexpr uint64_t kPieceBytes = 2 * kMiB;

// A block format refuses NaN and infinity by name; plain numbers keep them, they are the model's.
absl::Status WriteRows(DType dtype, absl::Span<const float> values, int64_t columns,
                       const Sink& sink) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, columns));
  const size_t rows = values.size() / static_cast<size_t>(columns);
  std::vector<std::byte> encoded(row_bytes * rows);
  ODMOE_RETURN_IF_ERROR(Info(dtype).block_elements > 1
                            ? EncodeRows(dtype, values, columns, {}, encoded.data())
                            : EncodeRow(dtype, values, encoded.data()));
  return sink(encoded);
}

// Within each head, row i and row i + half become rows 2i and 2i + 1.
template <typename T>
void PairRotaryRows(const SourceRows& part, size_t row_elements, std::vector<T>& rows) {
  if (part.order != RowOrder::kRotaryPairs) return;
  const std::vector<T> halves = rows;
  const size_t head_rows = static_cast<size_t>(part.head_rows);
  for (size_t row = 0; row < rows.size() / row_elements; ++row) {
    const size_t in_head = row % head_rows;
    const size_t from = row - in_head + in_head / 2 + (in_head % 2) * (head_rows / 2);
    std::memcpy(rows.data() + row * row_elements, halves.data() + from * row_elements,
                row_elements * sizeof(T));
  }
}

absl::Status StreamZeros(const SourceRows& part, DType dtype, const Sink& sink) {
  const std::vector<float> zeros(static_cast<size_t>(part.columns), 0.0f);
  for (int64_t row = 0; row < part.row_count; ++row) {
    ODMOE_RETURN_IF_ERROR(WriteRows(dtype, zeros, part.columns, sink));
  }
  return absl::OkStatus();
}

// Rows of a ternary weight, from its codes and scale.
absl::Status StreamTernaryRows(const SourceRows& part, DType dtype, int64_t rows_at_once,
                               const Sink& sink) {
  std::vector<int8_t> codes;
  std::vector<std::byte> bytes;
  ODMOE_ASSIGN_OR_RETURN(const float scale, ScaleOf(*part.tensor));
  for (int64_t row = 0; row < part.row_count; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, part.row_count - row);
    ODMOE_RETURN_IF_ERROR(ReadTernaryRows(*part.tensor, part.first_row + row, count, codes));
    PairRotaryRows(part, static_cast<size_t>(part.columns), codes);
    const absl::Status encoded = EncodeTernaryRows(dtype, codes, scale, part.columns, bytes);
    if (!encoded.ok()) {
      return absl::Status(encoded.code(), absl::StrCat(part.tensor->path(), ": tensor '",
                                                       part.tensor->name, "': ",
                                                       encoded.message()));
    }
    ODMOE_RETURN_IF_ERROR(sink(bytes));
  }
  return absl::OkStatus();
}

absl::Status StreamScale(const SourceRows& part, DType dtype, const Sink& sink) {
  ODMOE_ASSIGN_OR_RETURN(const float scale, ScaleOf(*part.tensor));
  std::byte bytes[kI2_SScaleBytes];
  EncodeI2_SScale(scale, bytes);
  return sink(absl::MakeConstSpan(bytes, dtype == DType::kI2_S ? sizeof(bytes) : sizeof(scale)));
}

absl::Status StreamTiles(const SourceRows& part, DType dtype, const Sink& sink) {
  std::vector<int8_t> codes;
  ODMOE_RETURN_IF_ERROR(ReadTernaryRows(*part.tensor, part.first_row, part.row_count, codes));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<std::byte> tiles,
                         EncodeTiles(dtype, *part.kernel, codes));
  return sink(tiles);
}

absl::Status StreamRows(const SourceRows& part, DType dtype, const Sink& sink) {
  if (part.tensor == nullptr) return StreamZeros(part, dtype, sink);
  const CheckpointTensor& tensor = *part.tensor;
  int64_t rows_at_once =
      std::max<int64_t>(1, static_cast<int64_t>(kPieceBytes / sizeof(float)) / part.columns);
  if (part.order == RowOrder::kRotaryPairs) {
    rows_at_once = std::max<int64_t>(1, rows_at_once / part.head_rows) * part.head_rows;
  }
  if (IsTernary(tensor)) return StreamTernaryRows(part, dtype, rows_at_once, sink);
  const bool as_stored = tensor.encoding == WeightEncoding::kPlain && tensor.dtype == dtype;
  const bool repacked = tensor.encoding == WeightEncoding::kInt4 && dtype == DType::kQ4_0;
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, part.columns));
  std::vector<std::byte> bytes;
  std::vector<float> values;
  for (int64_t row = 0; row < part.row_count; row += rows_at_once) {
    const int64_t first = part.first_row + row;
    const int64_t count = std::min(rows_at_once, part.row_count - row);
    if (as_stored || repacked) {
      ODMOE_RETURN_IF_ERROR(as_stored
                                ? ReadStoredRows(tensor, part.columns, first, count, bytes)
                                : ReadQ4_0Rows(tensor, first, count, bytes));
      PairRotaryRows(part, row_bytes, bytes);
      ODMOE_RETURN_IF_ERROR(sink(bytes));
      continue;
    }
    ODMOE_RETURN_IF_ERROR(ReadWeightRows(tensor, part.columns, first, count, values));
    PairRotaryRows(part, static_cast<size_t>(part.columns), values);
    const absl::Status written = WriteRows(dtype, values, part.columns, sink);
    if (!written.ok()) {
      return absl::Status(written.code(), absl::StrCat("'", tensor.name, "', from row ", first,
                                                       " on: ", written.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status StreamTransposed(const SourceRows& part, DType dtype, const Sink& sink) {
  const size_t columns = static_cast<size_t>(part.columns);
  const size_t rows = static_cast<size_t>(part.row_count);
  std::vector<float> values;
  ODMOE_RETURN_IF_ERROR(
      ReadWeightRows(*part.tensor, part.columns, part.first_row, part.row_count, values));
  std::vector<float> transposed(values.size());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      transposed[column * rows + row] = values[row * columns + column];
    }
  }
  return WriteRows(dtype, transposed, part.row_count, sink);
}

}  // namespace

int64_t MatrixColumns(const CheckpointTensor& tensor) {
  return tensor.shape.empty() ? 1 : tensor.shape.back();
}

int64_t MatrixRows(const CheckpointTensor& tensor) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows;
}

SourceRows WholeRows(const CheckpointTensor& tensor) {
  return {.tensor = &tensor, .columns = MatrixColumns(tensor), .row_count = MatrixRows(tensor)};
}

absl::Status StreamPart(const OutputTensor& output, size_t part, const Sink& sink) {
  const SourceRows& rows = output.parts[part];
  switch (rows.order) {
    case RowOrder::kTransposed:
      return StreamTransposed(rows, output.info.dtype, sink);
    case RowOrder::kTensorScale:
      return StreamScale(rows, output.info.dtype, sink);
    case RowOrder::kTiles:
      return StreamTiles(rows, output.info.dtype, sink);
    default:
      return StreamRows(rows, output.info.dtype, sink);
  }
}

absl::Status StreamTensor(const OutputTensor& output, const Sink& sink) {
  for (size_t part = 0; part < output.parts.size(); ++part) {
    ODMOE_RETURN_IF_ERROR(StreamPart(output, part, sink));
  }
  if (!output.parts.empty()) return absl::OkStatus();
  return WriteRows(output.info.dtype, output.values, output.info.columns(), sink);
}

}  // namespace odmoe
