#include "converter/quantize/encode.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "converter/quantize/lane_encoders.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

bool IsPlainFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

absl::Status CheckFinite(absl::Span<const float> values, int64_t columns, int64_t first_row) {
  if (BestLaneEncoders().all_finite(values.data(), static_cast<int64_t>(values.size()))) {
    return absl::OkStatus();
  }
  const auto bad = std::find_if_not(values.begin(), values.end(),
                                    [](float v) { return std::isfinite(v); });
  const int64_t index = first_row * columns + (bad - values.begin());
  return absl::InvalidArgumentError(
      absl::StrCat("value ", index, " (row ", index / columns, ", column ", index % columns,
                   ") is ", *bad, ": NaN and infinity have no code"));
}

absl::Status CheckImportance(absl::Span<const float> importance, int64_t columns) {
  if (importance.empty()) return absl::OkStatus();
  if (importance.size() != static_cast<size_t>(columns)) {
    return absl::InvalidArgumentError(absl::StrCat("importance of ", importance.size(),
                                                   " columns for rows of ", columns));
  }
  for (size_t i = 0; i < importance.size(); ++i) {
    if (importance[i] >= 0.0f && std::isfinite(importance[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat("importance of column ", i, " is ",
                                                   importance[i],
                                                   ": must be finite and not negative"));
  }
  return absl::OkStatus();
}

}  // namespace

bool CanEncode(DType dtype) {
  return IsPlainFloat(dtype) || BestLaneEncoders().can_encode(dtype);
}

absl::Status EncodeRows(DType dtype, absl::Span<const float> values, int64_t columns,
                        absl::Span<const float> importance, std::byte* out) {
  if (!CanEncode(dtype)) {
    return absl::UnimplementedError(absl::StrCat(Info(dtype).name, " is not written, only read"));
  }
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, columns));
  if (values.empty()) return absl::OkStatus();
  if (columns == 0 || values.size() % static_cast<size_t>(columns) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(values.size(), " values are no whole rows of ", columns));
  }
  ODMOE_RETURN_IF_ERROR(CheckImportance(importance, columns));
  // So many rows at a time that they are still in cache when they are encoded after the check.
  constexpr int64_t kElementsAtOnce = 1 << 15;
  const int64_t rows = static_cast<int64_t>(values.size()) / columns;
  const int64_t rows_at_once = std::max<int64_t>(1, kElementsAtOnce / columns);
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - row);
    const auto part = values.subspan(static_cast<size_t>(row * columns),
                                     static_cast<size_t>(count * columns));
    ODMOE_RETURN_IF_ERROR(CheckFinite(part, columns, row));
    std::byte* const part_out = out + static_cast<uint64_t>(row) * row_bytes;
    if (IsPlainFloat(dtype)) {
      ODMOE_RETURN_IF_ERROR(EncodeRow(dtype, part, part_out));
      continue;
    }
    const EncodeJob job = {.values = part.data(),
                           .rows = count,
                           .columns = columns,
                           .importance = importance.empty() ? nullptr : importance.data(),
                           .out = reinterpret_cast<uint8_t*>(part_out)};
    if (!BestLaneEncoders().encode(dtype, job)) {
      return absl::InternalError(absl::StrCat("no encoder for ", Info(dtype).name));
    }
  }
  return absl::OkStatus();
}

}  // namespace odmoe
