#include "converter/bitnet/ternary_weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/output_tensor.h"
#include "converter/huggingface/weight_rows.h"
#include "converter/quantize/encode.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/i2_s.h"

namespace odmoe {
namespace {

// Weights looked at in one go, 4 MiB of floats.
constexpr int64_t kPassElements = kMiB;
// Smallest scale of the definition: keeps a weight of zeros from dividing by zero.
constexpr float kSmallestScale = 1e-5f;

absl::Status Wrong(const CheckpointTensor& tensor, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(tensor.path(), ": tensor '", tensor.name, "' ", what));
}

// Shows `look` all rows of the weight as they are stored, some at a time.
absl::Status PassOver(const CheckpointTensor& tensor,
                      const std::function<absl::Status(int64_t first, int64_t count)>& look) {
  const int64_t rows = MatrixRows(tensor);
  const int64_t columns = std::max<int64_t>(1, MatrixColumns(tensor));
  const int64_t at_once = std::max<int64_t>(1, kPassElements / columns);
  for (int64_t row = 0; row < rows; row += at_once) {
    ODMOE_RETURN_IF_ERROR(look(row, std::min(at_once, rows - row)));
  }
  return absl::OkStatus();
}

absl::Status ReadPlainRows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                           std::vector<float>& values) {
  const int64_t columns = MatrixColumns(tensor);
  std::vector<std::byte> stored;
  values.resize(static_cast<size_t>(count * columns));
  ODMOE_RETURN_IF_ERROR(ReadStoredRows(tensor, columns, first, count, stored));
  return DecodeRow(tensor.dtype, stored.data(), absl::MakeSpan(values));
}

absl::StatusOr<float> ReadStoredScale(const CheckpointTensor& tensor) {
  std::vector<std::byte> stored(Info(tensor.scales.dtype).block_bytes);
  ODMOE_RETURN_IF_ERROR(
      tensor.scales.file->ReadTensor(*tensor.scales.stored, 0, absl::MakeSpan(stored)));
  float scale = 0.0f;
  ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.scales.dtype, stored.data(), absl::MakeSpan(&scale, 1)));
  const float value = tensor.ternary->divides ? 1.0f / scale : scale;
  if (std::isfinite(value) && value > 0.0f) return value;
  return Wrong(tensor, absl::StrCat("has the scale ", scale, ", expected a number above 0"));
}

absl::StatusOr<float> FindScale(const CheckpointTensor& tensor) {
  double sum = 0.0;
  float magnitude = 0.0f;  // of the first weight that is not zero
  bool ternary = true;     // all others have the same
  std::vector<float> values;
  ODMOE_RETURN_IF_ERROR(PassOver(tensor, [&](int64_t first, int64_t count) {
    ODMOE_RETURN_IF_ERROR(ReadPlainRows(tensor, first, count, values));
    for (const float value : values) {
      const float size = std::fabs(value);
      sum += size;
      if (size == 0.0f) continue;
      if (magnitude == 0.0f) magnitude = size;
      ternary = ternary && size == magnitude;
    }
    return absl::OkStatus();
  }));
  const double mean = sum / static_cast<double>(MatrixRows(tensor) * MatrixColumns(tensor));
  if (!std::isfinite(mean)) return Wrong(tensor, "has weights that are not numbers");
  if (ternary && magnitude > 0.0f && tensor.ternary->keeps_ternary) return magnitude;
  return std::max(static_cast<float>(mean), kSmallestScale);
}

int8_t RoundedCode(float value, float scale) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), -1.0f, 1.0f));
}

absl::Status ReadPackedRows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                            std::vector<int8_t>& codes) {
  const int64_t columns = MatrixColumns(tensor);
  const int64_t packed_rows = MatrixRows(tensor) / 4;  // row r lies in bits 2 * (r / packed_rows)
  std::vector<std::byte> stored;
  for (int64_t row = first; row < first + count;) {
    const int64_t quarter = row / packed_rows, in_quarter = row % packed_rows;
    const int64_t run = std::min(first + count - row, packed_rows - in_quarter);
    stored.resize(static_cast<size_t>(run * columns));
    ODMOE_RETURN_IF_ERROR(tensor.file->ReadTensor(
        *tensor.stored, static_cast<uint64_t>(in_quarter * columns), absl::MakeSpan(stored)));
    int8_t* out = codes.data() + (row - first) * columns;
    unsigned highest = 0;
    for (size_t i = 0; i < stored.size(); ++i) {
      const unsigned code = (static_cast<unsigned>(stored[i]) >> (2 * quarter)) & 3u;
      highest = std::max(highest, code);
      out[i] = static_cast<int8_t>(static_cast<int>(code) - 1);
    }
    if (highest == 3u) {
      return Wrong(tensor, absl::StrCat("has a code 3 among rows ", row, " to ", row + run - 1,
                                        ", which stands for nothing"));
    }
    row += run;
  }
  return absl::OkStatus();
}

// That `encoded` still has the codes it was made of.
absl::Status CheckRoundTrip(DType dtype, absl::Span<const int8_t> codes, float scale,
                            const std::vector<std::byte>& encoded) {
  std::vector<float> back(codes.size());
  ODMOE_RETURN_IF_ERROR(DecodeRow(dtype, encoded.data(), absl::MakeSpan(back)));
  for (size_t i = 0; i < codes.size(); ++i) {
    // Formats with less than 24 bits round the scale, by 2^-8 at most (bf16).
    constexpr float kTolerance = 1.0f / 128.0f;
    const float expected = static_cast<float>(codes[i]) * scale;
    if (std::fabs(back[i] - expected) <= kTolerance * scale) continue;
    return absl::DataLossError(absl::StrCat(Info(dtype).name, " gives back ", back[i], " for ",
                                            expected, ": it cannot hold the scale ", scale));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsTernary(const CheckpointTensor& tensor) { return tensor.ternary != nullptr; }

bool IsTernaryFormat(DType dtype) {
  return dtype == DType::kTQ1_0 || dtype == DType::kTQ2_0 || IsBitnetDType(dtype);
}

absl::StatusOr<float> ScaleOf(const CheckpointTensor& tensor) {
  TernaryScale& scale = *tensor.ternary;
  // Held over the pass, so that it is made once.
  absl::MutexLock lock(&scale.mutex);
  if (!scale.value.has_value()) {
    ODMOE_ASSIGN_OR_RETURN(scale.value, tensor.encoding == WeightEncoding::kTernaryPacked
                                            ? ReadStoredScale(tensor)
                                            : FindScale(tensor));
  }
  return *scale.value;
}

absl::Status ReadTernaryRows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                             std::vector<int8_t>& codes) {
  codes.resize(static_cast<size_t>(count * MatrixColumns(tensor)));
  if (tensor.encoding == WeightEncoding::kTernaryPacked) {
    return ReadPackedRows(tensor, first, count, codes);
  }
  ODMOE_ASSIGN_OR_RETURN(const float scale, ScaleOf(tensor));
  std::vector<float> values;
  ODMOE_RETURN_IF_ERROR(ReadPlainRows(tensor, first, count, values));
  for (size_t i = 0; i < values.size(); ++i) codes[i] = RoundedCode(values[i], scale);
  return absl::OkStatus();
}

absl::Status ReadTernaryValues(const CheckpointTensor& tensor, int64_t first, int64_t count,
                               std::vector<float>& values) {
  std::vector<int8_t> codes;
  ODMOE_RETURN_IF_ERROR(ReadTernaryRows(tensor, first, count, codes));
  ODMOE_ASSIGN_OR_RETURN(const float scale, ScaleOf(tensor));
  values.resize(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) values[i] = static_cast<float>(codes[i]) * scale;
  return absl::OkStatus();
}

absl::Status EncodeTernaryRows(DType dtype, absl::Span<const int8_t> codes, float scale,
                               int64_t columns, std::vector<std::byte>& out) {
  const int64_t rows = static_cast<int64_t>(codes.size()) / columns;
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, columns));
  out.resize(row_bytes * static_cast<uint64_t>(rows));
  if (dtype == DType::kI2_S) {
    EncodeI2_SRow(codes, out.data());
    std::vector<int8_t> back(codes.size());
    const bool valid = DecodeI2_SRow(out.data(), absl::MakeSpan(back));
    if (valid && absl::MakeConstSpan(back) == codes) return absl::OkStatus();
    return absl::InternalError("i2_s does not give back the codes it was made of");
  }
  std::vector<float> values(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) values[i] = static_cast<float>(codes[i]) * scale;
  ODMOE_RETURN_IF_ERROR(EncodeRows(dtype, values, columns, {}, out.data()));
  return CheckRoundTrip(dtype, codes, scale, out);
}

absl::StatusOr<TernaryShares> CountTernary(const CheckpointTensor& stored) {
  CheckpointTensor tensor = stored;
  if (!IsTernary(tensor)) RoundToTernary(tensor);
  TernaryShares shares;
  ODMOE_ASSIGN_OR_RETURN(shares.scale, ScaleOf(tensor));
  const bool rounded = tensor.encoding == WeightEncoding::kTernaryRounded;
  double dot = 0.0, squares = 0.0;  // with and of the weights as stored
  std::vector<int8_t> codes;
  std::vector<float> values;
  ODMOE_RETURN_IF_ERROR(PassOver(tensor, [&](int64_t first, int64_t count) {
    ODMOE_RETURN_IF_ERROR(ReadTernaryRows(tensor, first, count, codes));
    for (const int8_t code : codes) {
      ++(code == 0 ? shares.zeros : code > 0 ? shares.plus : shares.minus);
    }
    if (!rounded) return absl::OkStatus();
    ODMOE_RETURN_IF_ERROR(ReadPlainRows(tensor, first, count, values));
    for (size_t i = 0; i < values.size(); ++i) {
      dot += static_cast<double>(values[i]) * codes[i];
      squares += static_cast<double>(values[i]) * values[i];
    }
    return absl::OkStatus();
  }));
  const double code_squares = static_cast<double>(shares.minus + shares.plus);
  if (rounded && squares > 0.0) {
    shares.cosine = code_squares > 0.0 ? dot / std::sqrt(squares * code_squares) : 0.0;
  }
  return shares;
}

void RoundToTernary(CheckpointTensor& tensor) {
  tensor.encoding = WeightEncoding::kTernaryRounded;
  tensor.ternary = std::make_shared<TernaryScale>();
  tensor.ternary->keeps_ternary = true;
}

}  // namespace odmoe
