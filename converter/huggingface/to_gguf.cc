#include "converter/huggingface/to_gguf.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/general_keys.h"
#include "converter/huggingface/tensor_mapping.h"
#include "converter/huggingface/tokenizer.h"
#include "converter/huggingface/weight_rows.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block formats

OutType MainOutType(const Checkpoint& checkpoint) {
  return checkpoint.main_dtype() == DType::kBF16 ? OutType::kBF16 : OutType::kF16;
}

// Whether all of a tensor is int4 packs that Q4_0 holds without loss.
absl::StatusOr<bool> IsQ4_0(const OutputTensor& tensor) {
  for (const SourceRows& part : tensor.parts) {
    if (part.order == RowOrder::kTransposed) return false;
    ODMOE_ASSIGN_OR_RETURN(const bool fits, FitsQ4_0(*part.tensor));
    if (!fits) return false;
  }
  return !tensor.parts.empty();
}

// Chooses the tensors' formats, and the number that names the mixture. `auto` keeps what the checkpoint
// has, and so its int4 packs where that is exact.
absl::StatusOr<uint32_t> ChooseFormats(const Checkpoint& checkpoint, OutType asked,
                                       std::vector<OutputTensor>& tensors) {
  constexpr uint32_t kMostlyQ4_0 = 2;
  const OutType outtype = asked == OutType::kAuto ? MainOutType(checkpoint) : asked;
  uint32_t file_type = GgufFileType(outtype);
  for (OutputTensor& tensor : tensors) {
    tensor.info.dtype = TensorFormat(outtype, tensor.info.name, tensor.info.ne);
    if (asked != OutType::kAuto || tensor.info.dtype == DType::kF32) continue;
    ODMOE_ASSIGN_OR_RETURN(const bool packed, IsQ4_0(tensor));
    if (!packed) continue;
    tensor.info.dtype = DType::kQ4_0;
    file_type = kMostlyQ4_0;
  }
  return file_type;
}

absl::Status BuildMetadata(const GgufPlan& plan, uint32_t file_type, const ToGgufOptions& options,
                           GgufMetadata& metadata) {
  const Architecture& architecture = *plan.architecture;
  metadata.Set("general.architecture", GgufValue::String(std::string(architecture.name())));
  metadata.Set("general.type", GgufValue::String("model"));
  const Checkpoint& checkpoint = *plan.checkpoint;
  ODMOE_RETURN_IF_ERROR(AddGeneralKeys(checkpoint.file_system(), checkpoint.folder(),
                                       checkpoint.name_or_path(), plan.header.tensors, metadata));
  architecture.AddKeys(file_type, metadata);
  metadata.Set("general.quantization_version", GgufValue::U32(kQuantizationVersion));
  return AddTokenizerKeys(*plan.checkpoint,
                          {.vocabulary_size = architecture.config().vocab_size,
                           .pre_tokenizer = options.pre_tokenizer},
                          metadata);
}

}  // namespace

absl::StatusOr<GgufPlan> PlanGguf(FileSystem& fs, const ToGgufOptions& options) {
  GgufPlan plan;
  ODMOE_ASSIGN_OR_RETURN(plan.checkpoint, Checkpoint::Open(fs, options.folder));
  ODMOE_ASSIGN_OR_RETURN(plan.architecture, FindArchitecture(plan.checkpoint->config(),
                                                              absl::StrCat(options.folder,
                                                                           "/config.json")));
  ODMOE_ASSIGN_OR_RETURN(plan.tensors, MapTensors(*plan.checkpoint, *plan.architecture));
  ODMOE_ASSIGN_OR_RETURN(const uint32_t file_type,
                         ChooseFormats(*plan.checkpoint, options.outtype, plan.tensors));
  for (const OutputTensor& tensor : plan.tensors) plan.header.tensors.push_back(tensor.info);
  ODMOE_RETURN_IF_ERROR(BuildMetadata(plan, file_type, options, plan.header.metadata));
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(plan.header));
  ODMOE_ASSIGN_OR_RETURN(const std::string header, EncodeGgufHeader(plan.header));
  for (const GgufTensor& tensor : plan.header.tensors) plan.data_bytes += tensor.bytes;
  const GgufTensor& last = plan.header.tensors.back();
  plan.file_bytes = header.size() + RoundUp(last.offset + last.bytes, kDefaultGgufAlignment);
  return plan;
}

}  // namespace odmoe
