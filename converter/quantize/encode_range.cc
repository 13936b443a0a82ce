#include "converter/quantize/encode_range.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "converter/quantize/encode.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/check_values.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

// Large enough for its bytes to be read at a disk's speed, small enough for many workers to hold
// theirs.
constexpr int64_t kPieceElements = int64_t{1} << 19;

uint64_t BytesOfElements(DType dtype, int64_t elements) {
  const DTypeInfo& info = Info(dtype);
  return static_cast<uint64_t>(elements) / info.block_elements * info.block_bytes;
}

absl::Status In(const GgufTensor& tensor, int64_t first_row, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("tensor '", tensor.name, "', from row ",
                                                  first_row, " on: ", status.message()));
}

// One pass over a range.
class RangeEncoder {
 public:
  RangeEncoder(const GgufModel& model, const TensorRange& range, const ImportanceMatrix* importance,
               absl::Span<const EncodeTarget> targets)
      : model_(model),
        range_(range),
        tensor_(*range.tensor),
        importance_(importance),
        targets_(targets),
        columns_(tensor_.columns()) {
    for (const EncodeTarget& target : targets) encodes_ |= target.dtype != tensor_.dtype;
    matrix_rows_ = tensor_.ne.size() > 1 ? tensor_.ne[1] : 1;
  }

  absl::Status Run() {
    if (encodes_ && (range_.first % columns_ != 0 || range_.count % columns_ != 0)) {
      return absl::InternalError(absl::StrCat("'", tensor_.name, "': not whole rows"));
    }
    const int64_t unit = encodes_ ? columns_ : Info(tensor_.dtype).block_elements;
    const int64_t most = std::max<int64_t>(1, kPieceElements / unit) * unit;
    for (int64_t at = range_.first, end = range_.first + range_.count; at < end;) {
      int64_t count = std::min(most, end - at);
      // A piece has one importance, so lies in one matrix.
      if (encodes_ && importance_ != nullptr) {
        const int64_t matrix = matrix_rows_ * columns_;
        count = std::min(count, (at / matrix + 1) * matrix - at);
      }
      ODMOE_RETURN_IF_ERROR(Piece(at, count));
      at += count;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Piece(int64_t first, int64_t count) {
    const int64_t row = first / columns_;
    stored_.resize(BytesOfElements(tensor_.dtype, count));
    ODMOE_RETURN_IF_ERROR(
        model_.ReadTensor(tensor_, BytesOfElements(tensor_.dtype, first), absl::MakeSpan(stored_)));
    if (encodes_) {
      values_.resize(static_cast<size_t>(count));
      const absl::Status decoded =
          DecodeRow(tensor_.dtype, stored_.data(), absl::MakeSpan(values_));
      if (!decoded.ok()) return In(tensor_, row, decoded);
      ODMOE_RETURN_IF_ERROR(FindImportance(row));
    }
    for (const EncodeTarget& target : targets_) {
      if (target.dtype == tensor_.dtype) {
        ODMOE_RETURN_IF_ERROR(CheckFinite(tensor_.dtype, stored_, row));
        ODMOE_RETURN_IF_ERROR((*target.sink)(stored_));
        continue;
      }
      encoded_.resize(BytesOfElements(target.dtype, count));
      const absl::Status encoded =
          EncodeRows(target.dtype, values_, columns_, importance_of_, encoded_.data());
      if (!encoded.ok()) return In(tensor_, row, encoded);
      ODMOE_RETURN_IF_ERROR(CheckFinite(target.dtype, encoded_, row));
      ODMOE_RETURN_IF_ERROR((*target.sink)(encoded_));
    }
    return absl::OkStatus();
  }

  absl::Status FindImportance(int64_t row) {
    const int64_t matrix = row / matrix_rows_;
    if (importance_ == nullptr || matrix == matrix_) return absl::OkStatus();
    ODMOE_ASSIGN_OR_RETURN(
        importance_of_,
        importance_->ForTensor(tensor_.name, columns_, tensor_.rows() / matrix_rows_, matrix));
    matrix_ = matrix;
    return absl::OkStatus();
  }

  // A scale that a format cannot hold is infinite, and so are then all weights of its block.
  absl::Status CheckFinite(DType dtype, absl::Span<const std::byte> bytes, int64_t row) const {
    const std::optional<uint64_t> block = FindNotFinite(dtype, bytes);
    if (!block) return absl::OkStatus();
    const int64_t element = static_cast<int64_t>(*block) * Info(dtype).block_elements;
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", tensor_.name, "', row ", row + element / columns_, ", column ",
        element % columns_, ": ", dtype == tensor_.dtype ? "NaN or infinite" : "too large for ",
        dtype == tensor_.dtype ? "" : Info(dtype).name));
  }

  const GgufModel& model_;
  const TensorRange& range_;
  const GgufTensor& tensor_;
  const ImportanceMatrix* const importance_;
  const absl::Span<const EncodeTarget> targets_;
  const int64_t columns_;
  int64_t matrix_rows_ = 1;
  bool encodes_ = false;
  int64_t matrix_ = -1;  // that importance_of_ is for
  std::vector<float> importance_of_;
  std::vector<std::byte> stored_, encoded_;
  std::vector<float> values_;
};

}  // namespace

absl::Status EncodeTensorRange(const GgufModel& model, const TensorRange& range,
                               const ImportanceMatrix* importance,
                               absl::Span<const EncodeTarget> targets) {
  return RangeEncoder(model, range, importance, targets).Run();
}

}  // namespace odmoe
