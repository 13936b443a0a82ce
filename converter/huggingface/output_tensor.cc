#include "converter/huggingface/output_tensor.h"

#include <algorithm>
#include <cstring>

#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

using Sink = std::function<absl::Status(absl::Span<const std::byte>)>;

constexpr uint64_t kPieceBytes = 2 * kMiB;

// Rows of a weight as they are stored.
absl::Status ReadRows(const SourceRows& part, int64_t first, int64_t count,
                      std::vector<std::byte>& bytes) {
  const CheckpointTensor& tensor = *part.tensor;
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, part.columns));
  bytes.resize(row_bytes * static_cast<uint64_t>(count));
  return tensor.file->ReadTensor(*tensor.stored,
                                 row_bytes * static_cast<uint64_t>(part.first_row + first),
                                 absl::MakeSpan(bytes));
}

absl::Status EncodeRows(DType dtype, absl::Span<const float> values, int64_t columns,
                        const Sink& sink) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, columns));
  const size_t rows = values.size() / static_cast<size_t>(columns);
  std::vector<std::byte> encoded(row_bytes * rows);
  for (size_t row = 0; row < rows; ++row) {
    const auto of_row = values.subspan(row * static_cast<size_t>(columns),
                                       static_cast<size_t>(columns));
    ODMOE_RETURN_IF_ERROR(EncodeRow(dtype, of_row, encoded.data() + row * row_bytes));
  }
  return sink(encoded);
}

// Within each head, row i and row i + half become rows 2i and 2i + 1.
void PairRotaryRows(size_t head_rows, size_t row_bytes, std::vector<std::byte>& bytes) {
  const std::vector<std::byte> halves = bytes;
  const size_t half = head_rows / 2;
  for (size_t row = 0; row < bytes.size() / row_bytes; ++row) {
    const size_t in_head = row % head_rows;
    const size_t from = row - in_head + in_head / 2 + (in_head % 2) * half;
    std::memcpy(bytes.data() + row * row_bytes, halves.data() + from * row_bytes, row_bytes);
  }
}

absl::Status StreamRows(const SourceRows& part, DType dtype, const Sink& sink) {
  const CheckpointTensor& tensor = *part.tensor;
  int64_t rows_at_once =
      std::max<int64_t>(1, static_cast<int64_t>(kPieceBytes / sizeof(float)) / part.columns);
  const bool pairs = part.order == RowOrder::kRotaryPairs;
  if (pairs) rows_at_once = std::max<int64_t>(1, rows_at_once / part.head_rows) * part.head_rows;
  std::vector<std::byte> stored;
  std::vector<float> values;
  for (int64_t row = 0; row < part.row_count; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, part.row_count - row);
    ODMOE_RETURN_IF_ERROR(ReadRows(part, row, count, stored));
    if (pairs) {
      PairRotaryRows(static_cast<size_t>(part.head_rows), stored.size() / static_cast<size_t>(count),
                     stored);
    }
    if (tensor.dtype == dtype) {
      ODMOE_RETURN_IF_ERROR(sink(stored));
      continue;
    }
    values.resize(static_cast<size_t>(count * part.columns));
    ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values)));
    ODMOE_RETURN_IF_ERROR(EncodeRows(dtype, values, part.columns, sink));
  }
  return absl::OkStatus();
}

absl::Status StreamTransposed(const SourceRows& part, DType dtype, const Sink& sink) {
  const CheckpointTensor& tensor = *part.tensor;
  const size_t columns = static_cast<size_t>(part.columns);
  const size_t rows = static_cast<size_t>(part.row_count);
  std::vector<std::byte> stored;
  ODMOE_RETURN_IF_ERROR(ReadRows(part, 0, part.row_count, stored));
  std::vector<float> values(rows * columns);
  ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values)));
  std::vector<float> transposed(values.size());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      transposed[column * rows + row] = values[row * columns + column];
    }
  }
  return EncodeRows(dtype, transposed, part.row_count, sink);
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
  return rows.order == RowOrder::kTransposed ? StreamTransposed(rows, output.info.dtype, sink)
                                             : StreamRows(rows, output.info.dtype, sink);
}

absl::Status StreamTensor(const OutputTensor& output, const Sink& sink) {
  for (size_t part = 0; part < output.parts.size(); ++part) {
    ODMOE_RETURN_IF_ERROR(StreamPart(output, part, sink));
  }
  if (!output.parts.empty()) return absl::OkStatus();
  return EncodeRows(output.info.dtype, output.values, output.info.columns(), sink);
}

}  // namespace odmoe
