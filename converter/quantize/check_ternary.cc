#include "converter/quantize/check_ternary.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

constexpr int64_t kLookedAt = int64_t{1} << 19;
constexpr float kTolerance = 0.01f;  // a scale in f16 or in q8_0's 127ths is nearer than that

bool IsTernaryDType(DType dtype) { return dtype == DType::kTQ1_0 || dtype == DType::kTQ2_0; }

// What tq1_0 and tq2_0 make of weights: the block's largest magnitude times -1, 0 or 1.
struct TernaryFit {
  int64_t weights = 0, zeros = 0;
  double product = 0.0, length = 0.0, fitted_length = 0.0;  // sums of x y, x^2 and y^2
  bool ternary = true;

  void Add(absl::Span<const float> block) {
    float most = 0.0f;
    for (const float x : block) most = std::max(most, std::abs(x));
    for (const float x : block) {
      const float size = std::abs(x);
      const bool kept = most > 0.0f && 2.0f * size >= most;
      const double fitted = kept ? std::copysign(most, x) : 0.0f;
      if (std::abs(size - std::abs(fitted)) > kTolerance * most) ternary = false;
      zeros += kept ? 0 : 1;
      product += double{x} * fitted;
      length += double{x} * x;
      fitted_length += fitted * fitted;
    }
    weights += static_cast<int64_t>(block.size());
  }
  double cosine() const {
    const double lengths = std::sqrt(length) * std::sqrt(fitted_length);
    return lengths > 0.0 ? product / lengths : 1.0;
  }
};

absl::StatusOr<TernaryFit> FitOf(const GgufModel& model, const GgufTensor& tensor,
                                 int64_t block_elements) {
  const int64_t columns = tensor.columns();
  const int64_t rows = std::clamp<int64_t>(kLookedAt / columns, 1, tensor.rows());
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, columns));
  std::vector<std::byte> stored(row_bytes);
  std::vector<float> values(static_cast<size_t>(columns));
  TernaryFit fit;
  for (int64_t row = 0; row < rows; ++row) {
    ODMOE_RETURN_IF_ERROR(
        model.ReadTensor(tensor, static_cast<uint64_t>(row) * row_bytes, absl::MakeSpan(stored)));
    ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values)));
    for (int64_t at = 0; at < columns; at += block_elements) {
      fit.Add(absl::MakeSpan(values).subspan(at, block_elements));
    }
  }
  return fit;
}

}  // namespace

absl::Status CheckTernary(const GgufModel& source, const QuantizedOutput& output) {
  for (size_t i = 0; i < output.tensors().size(); ++i) {
    const DTypeInfo& info = Info(output.tensors()[i].dtype);
    const GgufTensor& from = *output.sources()[i];
    if (!IsTernaryDType(info.dtype) || IsTernaryDType(from.dtype)) continue;
    ODMOE_ASSIGN_OR_RETURN(const TernaryFit fit, FitOf(source, from, info.block_elements));
    if (fit.ternary) continue;
    return absl::FailedPreconditionError(absl::StrFormat(
        "tensor '%s' is not ternary: in %s it would have %.1f %% zeros and a cosine of %.4f to "
        "what it is. Of a BitNet checkpoint `odmoe convert` makes a ternary model; "
        "--force-ternary rounds all the same",
        from.name, info.name, 100.0 * double(fit.zeros) / double(fit.weights), fit.cosine()));
  }
  return absl::OkStatus();
}

}  // namespace odmoe
