#include "converter/bitnet/ternary_report.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "converter/bitnet/tiles.h"
#include "converter/huggingface/to_gguf.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/i2_s.h"

namespace odmoe {
namespace {

constexpr uint64_t kPieceBytes = kMiB;

// Counts weights as they come; they must be 0 or of one magnitude.
class Counter {
 public:
  explicit Counter(float scale) : scale_(scale) {}

  void Add(absl::Span<const float> values) {
    // Formats round the scale by 2^-8 at most (bf16).
    constexpr float kTolerance = 1.0f / 128.0f;
    for (const float value : values) {
      ++(value == 0.0f ? shares_.zeros : value > 0.0f ? shares_.plus : shares_.minus);
      const float off = value == 0.0f ? 0.0f : std::fabs(std::fabs(value) - scale_);
      if (!(off <= kTolerance * scale_)) stray_ = value;
    }
  }
  void Add(absl::Span<const int8_t> codes) {
    for (const int8_t code : codes) {
      ++(code == 0 ? shares_.zeros : code > 0 ? shares_.plus : shares_.minus);
    }
  }
  const TernaryShares& shares() const { return shares_; }
  // A weight that is neither 0 nor about the scale; 0: there is none.
  float stray() const { return stray_; }

 private:
  const float scale_;
  TernaryShares shares_;
  float stray_ = 0.0f;
};

absl::Status CountRows(const GgufReader& reader, const GgufTensor& tensor, Counter& counter) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, tensor.columns()));
  const uint64_t at_once = std::max<uint64_t>(1, kPieceBytes / row_bytes);
  const uint64_t rows = static_cast<uint64_t>(tensor.rows());
  std::vector<std::byte> bytes;
  std::vector<float> values;
  std::vector<int8_t> codes;
  for (uint64_t row = 0; row < rows; row += at_once) {
    const uint64_t count = std::min(at_once, rows - row);
    bytes.resize(count * row_bytes);
    ODMOE_RETURN_IF_ERROR(reader.ReadTensor(tensor, row * row_bytes, absl::MakeSpan(bytes)));
    const size_t elements = static_cast<size_t>(count) * static_cast<size_t>(tensor.columns());
    if (tensor.dtype == DType::kI2_S) {
      codes.resize(elements);
      if (!DecodeI2_SRow(bytes.data(), absl::MakeSpan(codes))) {
        return absl::DataLossError("a code that stands for nothing");
      }
      counter.Add(codes);
    } else {
      values.resize(elements);
      ODMOE_RETURN_IF_ERROR(DecodeRow(tensor.dtype, bytes.data(), absl::MakeSpan(values)));
      counter.Add(values);
    }
  }
  return absl::OkStatus();
}

absl::Status CountTiles(const GgufReader& reader, const GgufTensor& tensor,
                        const KernelConfig* kernels, Counter& counter) {
  const KernelShape* shape =
      kernels == nullptr ? nullptr : kernels->Find(tensor.rows(), tensor.columns());
  if (shape == nullptr) return absl::InvalidArgumentError("there is no kernel for its shape");
  std::vector<std::byte> tiles(tensor.bytes);
  ODMOE_RETURN_IF_ERROR(reader.ReadTensor(tensor, 0, absl::MakeSpan(tiles)));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int8_t> codes, DecodeTiles(tensor.dtype, *shape, tiles));
  counter.Add(codes);
  return absl::OkStatus();
}

// Of formats that keep the scale apart.
absl::StatusOr<float> ReadScaleApart(const GgufReader& reader, const GgufTensor& tensor) {
  float scale = 0.0f;
  const auto out = absl::MakeSpan(reinterpret_cast<std::byte*>(&scale), sizeof(scale));
  if (tensor.dtype == DType::kI2_S) {
    ODMOE_RETURN_IF_ERROR(reader.ReadTensor(tensor, tensor.bytes - kI2_SScaleBytes, out));
    return scale;
  }
  const GgufTensor* apart = reader.Find(absl::StrCat(tensor.name, "_scale"));
  if (apart == nullptr || apart->bytes != sizeof(scale)) {
    return absl::DataLossError("it has no scale beside it");
  }
  ODMOE_RETURN_IF_ERROR(reader.ReadTensor(*apart, 0, out));
  return scale;
}

absl::Status VerifyRow(const GgufReader& reader, const TernaryRow& row,
                       const KernelConfig* kernels) {
  const GgufTensor* tensor = reader.Find(row.name);
  if (tensor == nullptr) return absl::DataLossError("it is missing");
  Counter counter(row.shares.scale);
  const bool tiled = tensor->dtype == DType::kTL1 || tensor->dtype == DType::kTL2;
  ODMOE_RETURN_IF_ERROR(tiled ? CountTiles(reader, *tensor, kernels, counter)
                              : CountRows(reader, *tensor, counter));
  if (IsBitnetDType(tensor->dtype)) {
    ODMOE_ASSIGN_OR_RETURN(const float scale, ReadScaleApart(reader, *tensor));
    if (scale != row.shares.scale) {
      return absl::DataLossError(
          absl::StrCat("its scale is ", scale, ", expected ", row.shares.scale));
    }
  }
  const TernaryShares& found = counter.shares();
  if (counter.stray() != 0.0f) {
    return absl::DataLossError(absl::StrCat("it has the weight ", counter.stray(),
                                            ", expected 0 or ", row.shares.scale, " in size"));
  }
  if (found.minus == row.shares.minus && found.zeros == row.shares.zeros &&
      found.plus == row.shares.plus) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrFormat(
      "of -1, 0 and 1 it has %d, %d and %d, expected %d, %d and %d", found.minus, found.zeros,
      found.plus, row.shares.minus, row.shares.zeros, row.shares.plus));
}

}  // namespace

TernaryShares TernaryReport::Total() const {
  TernaryShares total;
  for (const TernaryRow& row : rows) {
    total.minus += row.shares.minus;
    total.zeros += row.shares.zeros;
    total.plus += row.shares.plus;
  }
  return total;
}

absl::StatusOr<TernaryReport> ReportTernary(FileSystem& fs, const std::string& folder) {
  ODMOE_ASSIGN_OR_RETURN(const GgufPlan plan,
                         PlanGguf(fs, {.folder = folder, .outtype = OutType::kF32}));
  TernaryReport report{.architecture = std::string(plan.architecture->name())};
  for (const OutputTensor& tensor : plan.tensors) {
    if (tensor.parts.empty() || tensor.parts[0].tensor == nullptr) continue;
    const CheckpointTensor& weight = *tensor.parts[0].tensor;
    if (!IsTernary(weight)) continue;
    TernaryRow row{.name = tensor.info.name,
                   .rows = MatrixRows(weight),
                   .columns = MatrixColumns(weight),
                   .packed = weight.encoding == WeightEncoding::kTernaryPacked,
                   .scale_divides = weight.ternary->divides};
    ODMOE_ASSIGN_OR_RETURN(row.shares, CountTernary(weight));
    report.rows.push_back(std::move(row));
  }
  if (!report.rows.empty()) return report;
  return absl::InvalidArgumentError(absl::StrCat(
      folder,
      ": no ternary weights: neither is its class BitNetForCausalLM or BitnetForCausalLM, nor "
      "its quantization_config's quant_method bitnet"));
}

absl::StatusOr<int64_t> VerifyTernaryFile(FileSystem& fs, const std::string& path,
                                          const TernaryReport& report,
                                          const KernelConfig* kernels) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<GgufReader> reader,
                         GgufReader::Open(std::move(file)));
  int64_t count = 0;
  for (const TernaryRow& row : report.rows) {
    const absl::Status status = VerifyRow(*reader, row, kernels);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(path, ": tensor '", row.name, "': ", status.message()));
    }
    count += row.shares.count();
  }
  return count;
}

}  // namespace odmoe
