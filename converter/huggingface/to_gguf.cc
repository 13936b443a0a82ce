#include "converter/huggingface/to_gguf.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "converter/huggingface/general_keys.h"
#include "converter/huggingface/tensor_mapping.h"
#include "converter/huggingface/tokenizer.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block formats

// The format most weights have: the first matrix that is not F32 tells, and F16 is safe without one.
OutType ChooseOutType(const Checkpoint& checkpoint) {
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (tensor.shape.size() < 2) continue;
    if (tensor.dtype == DType::kBF16) return OutType::kBF16;
    if (tensor.dtype == DType::kF16) return OutType::kF16;
  }
  return OutType::kF16;
}

absl::Status BuildMetadata(const GgufPlan& plan, OutType outtype, const ToGgufOptions& options,
                           GgufMetadata& metadata) {
  const Architecture& architecture = *plan.architecture;
  metadata.Set("general.architecture", GgufValue::String(std::string(architecture.name())));
  metadata.Set("general.type", GgufValue::String("model"));
  const Checkpoint& checkpoint = *plan.checkpoint;
  ODMOE_RETURN_IF_ERROR(AddGeneralKeys(checkpoint.file_system(), checkpoint.folder(),
                                       checkpoint.name_or_path(), plan.header.tensors, metadata));
  architecture.AddKeys(GgufFileType(outtype), metadata);
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
  const OutType outtype =
      options.outtype == OutType::kAuto ? ChooseOutType(*plan.checkpoint) : options.outtype;
  for (OutputTensor& tensor : plan.tensors) {
    tensor.info.dtype = TensorFormat(outtype, tensor.info.name, tensor.info.ne);
    plan.header.tensors.push_back(tensor.info);
  }
  ODMOE_RETURN_IF_ERROR(BuildMetadata(plan, outtype, options, plan.header.metadata));
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(plan.header));
  ODMOE_ASSIGN_OR_RETURN(const std::string header, EncodeGgufHeader(plan.header));
  for (const GgufTensor& tensor : plan.header.tensors) plan.data_bytes += tensor.bytes;
  const GgufTensor& last = plan.header.tensors.back();
  plan.file_bytes = header.size() + RoundUp(last.offset + last.bytes, kDefaultGgufAlignment);
  return plan;
}

}  // namespace odmoe
