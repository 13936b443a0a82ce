#include "converter/quantize/encode.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "converter/quantize/lane_encoders.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

absl::Status CheckFinite(absl::Span<const float> values, int64_t columns) {
  // Whole runs first, without a branch a number.
  constexpr size_t kRun = 4096;
  for (size_t begin = 0; begin < values.size(); begin += kRun) {
    const auto run = values.subspan(begin, kRun);
    bool finite = true;
    for (const float v : run) finite &= std::fabs(v) <= std::numeric_limits<float>::max();
    for (size_t i = 0; !finite && i < run.size(); ++i) {
      if (std::isfinite(run[i])) continue;
      const size_t index = begin + i;
      return absl::InvalidArgumentError(
          absl::StrCat("value ", index, " (row ", index / columns, ", column ", index % columns,
                       ") is ", run[i], ": NaN and infinity have no code"));
    }
  }
  return absl::OkStatus();
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
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
      return true;
    default:
      return BestLaneEncoders().can_encode(dtype);
  }
}

absl::Status EncodeRows(DType dtype, absl::Span<const float> values, int64_t columns,
                        absl::Span<const float> importance, std::byte* out) {
  if (!CanEncode(dtype)) {
    return absl::UnimplementedError(absl::StrCat(Info(dtype).name, " is not written, only read"));
  }
  ODMOE_RETURN_IF_ERROR(RowBytes(dtype, columns).status());
  if (values.empty()) return absl::OkStatus();
  if (columns == 0 || values.size() % static_cast<size_t>(columns) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(values.size(), " values are no whole rows of ", columns));
  }
  ODMOE_RETURN_IF_ERROR(CheckFinite(values, columns));
  ODMOE_RETURN_IF_ERROR(CheckImportance(importance, columns));
  const EncodeJob job = {.values = values.data(),
                         .rows = static_cast<int64_t>(values.size()) / columns,
                         .columns = columns,
                         .importance = importance.empty() ? nullptr : importance.data(),
                         .out = reinterpret_cast<uint8_t*>(out)};
  if (BestLaneEncoders().encode(dtype, job)) return absl::OkStatus();
  return EncodeRow(dtype, values, out);
}

}  // namespace odmoe
