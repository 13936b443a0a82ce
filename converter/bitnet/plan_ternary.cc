#include "converter/bitnet/plan_ternary.h"

#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "converter/bitnet/ternary_weights.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Weights that lose less than this are ternary but for the rounding of their own format.
constexpr double kLossless = 1.0 - 1e-5;

// The weight as one that is to be rounded. Null: it is plain and not ternary, and may not be.
absl::StatusOr<const CheckpointTensor*> Rounded(const CheckpointTensor& weight, bool force,
                                                absl::string_view format,
                                                std::list<CheckpointTensor>& rounded) {
  if (weight.encoding != WeightEncoding::kPlain) {
    return absl::InvalidArgumentError(absl::StrCat(weight.path(), ": tensor '", weight.name,
                                                   "' is quantized, and not ternary, as ", format,
                                                   " is"));
  }
  rounded.push_back(weight);
  RoundToTernary(rounded.back());
  if (force) return &rounded.back();
  ODMOE_ASSIGN_OR_RETURN(const TernaryShares shares, CountTernary(rounded.back()));
  if (shares.cosine >= kLossless) return &rounded.back();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s: tensor '%s' is not ternary, as %s is: rounded to -1, 0 and 1 times %g, %.1f%% of it is "
      "0 "
      "and its cosine to the weights is %.4f; a model that was not trained so is lost. To do it "
      "all "
      "the same: odmoe bitnet convert --force-ternary",
      weight.path(), weight.name, format, shares.scale,
      100.0 * static_cast<double>(shares.zeros) / static_cast<double>(shares.count()),
      shares.cosine));
}

absl::Status Tile(const KernelConfig* kernels, OutputTensor& tensor) {
  SourceRows& part = tensor.parts[0];
  const absl::string_view format = Info(tensor.info.dtype).name;
  if (kernels == nullptr || kernels->dtype != tensor.info.dtype) {
    return absl::InvalidArgumentError(absl::StrCat(
        format,
        " is for one build of BitNet's kernels: name it with --kernels FILE.ini, which odmoe "
        "bitnet kernels writes"));
  }
  part.kernel = kernels->Find(part.row_count, part.columns);
  if (part.kernel == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.info.name, "' is ",
                                                   part.row_count, " x ", part.columns,
                                                   ", for which there is no ", format, " kernel"));
  }
  part.order = RowOrder::kTiles;
  return absl::OkStatus();
}

SourceRows ScaleOfPart(const OutputTensor& tensor) {
  SourceRows part = tensor.parts[0];
  part.order = RowOrder::kTensorScale;
  return part;
}

OutputTensor ScaleTensor(const OutputTensor& tensor) {
  OutputTensor scale;
  scale.info.name = absl::StrCat(tensor.info.name, "_scale");
  scale.info.ne = {1};
  scale.parts = {ScaleOfPart(tensor)};
  return scale;
}

// Formats of BitNet's own are for its models, and have one scale a tensor.
absl::Status CheckFormat(absl::string_view architecture, const OutputTensor& tensor) {
  if (!IsBitnetDType(tensor.info.dtype)) return absl::OkStatus();
  const absl::string_view format = Info(tensor.info.dtype).name;
  if (!absl::StartsWith(architecture, "bitnet")) {
    return absl::InvalidArgumentError(
        absl::StrCat(format, " is known to BitNet's own runtimes alone, and ", architecture,
                     " is none of their models; tq2_0 holds ternary weights everywhere"));
  }
  if (tensor.parts.size() == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.info.name, "' is made of ",
                                                 tensor.parts.size(), " weights, and ", format,
                                                 " has one scale"));
}

}  // namespace

absl::Status PlanTernaryTensors(absl::string_view architecture, const TernaryOptions& options,
                                std::vector<OutputTensor>& tensors,
                                std::list<CheckpointTensor>& rounded) {
  std::vector<OutputTensor> planned;
  for (OutputTensor& tensor : tensors) {
    const DType dtype = tensor.info.dtype;
    std::vector<OutputTensor> behind;
    if (IsTernaryFormat(dtype)) {
      ODMOE_RETURN_IF_ERROR(CheckFormat(architecture, tensor));
      for (SourceRows& part : tensor.parts) {
        if (part.tensor == nullptr || IsTernary(*part.tensor)) continue;
        ODMOE_ASSIGN_OR_RETURN(
            part.tensor, Rounded(*part.tensor, options.force, Info(dtype).name, rounded));
      }
    }
    if (dtype == DType::kI2_S) {
      tensor.parts.push_back(ScaleOfPart(tensor));
    } else if (IsBitnetDType(dtype)) {
      ODMOE_RETURN_IF_ERROR(Tile(options.kernels, tensor));
      behind.push_back(ScaleTensor(tensor));  // the runtime reads it as the weight's tail
    }
    planned.push_back(std::move(tensor));
    std::move(behind.begin(), behind.end(), std::back_inserter(planned));
  }
  tensors = std::move(planned);
  return absl::OkStatus();
}

}  // namespace odmoe
