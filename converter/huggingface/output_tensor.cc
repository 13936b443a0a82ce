#include "converter/huggingface/output_tensor.h"

#include <algorithm>

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
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes,
                         RowBytes(tensor.dtype, MatrixColumns(tensor)));
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

absl::Status StreamRows(const SourceRows& part, DType dtype, const Sink& sink) {
  const CheckpointTensor& tensor = *part.tensor;
  const int64_t columns = MatrixColumns(tensor);
  const int64_t rows_at_once =
      std::max<int64_t>(1, static_cast<int64_t>(kPieceBytes / sizeof(float)) / columns);
  std::vector<std::byte> stored;
  std::vector<float> values;
  for (int64_t row = 0; row < part.row_count; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, part.row_count - row);
    ODMOE_RETURN_IF_ERROR(ReadRows(part, row, count, stored));
    if (tensor.dtype == dtype) {
      ODMOE_RETURN_IF_ERROR(sink(stored));
      continue;
    }
    values.resize(static_cast<size_t>(count * columns));
    ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values)));
    ODMOE_RETURN_IF_ERROR(EncodeRows(dtype, values, columns, sink));
  }
  return absl::OkStatus();
}

absl::Status StreamTransposed(const SourceRows& part, DType dtype, const Sink& sink) {
  const CheckpointTensor& tensor = *part.tensor;
  const size_t columns = static_cast<size_t>(MatrixColumns(tensor));
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

absl::Status StreamTensor(const OutputTensor& output, const Sink& sink) {
  for (const SourceRows& part : output.parts) {
    ODMOE_RETURN_IF_ERROR(part.transposed ? StreamTransposed(part, output.info.dtype, sink)
                                          : StreamRows(part, output.info.dtype, sink));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
