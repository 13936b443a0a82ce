#include "converter/huggingface/to_gguf.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "converter/bitnet/plan_ternary.h"
#include "converter/huggingface/general_keys.h"
#include "converter/huggingface/metadata_overrides.h"
#include "converter/huggingface/tensor_map.h"
#include "converter/huggingface/tensor_mapping.h"
#include "converter/huggingface/tokenizer.h"
#include "converter/huggingface/weight_rows.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

OutType MainOutType(const Checkpoint& checkpoint) {
  return checkpoint.main_dtype() == DType::kBF16 ? OutType::kBF16 : OutType::kF16;
}

// Whether all of a tensor is int4 packs that Q4_0 holds without loss.
absl::StatusOr<bool> IsQ4_0(const OutputTensor& tensor) {
  for (const SourceRows& part : tensor.parts) {
    if (part.order == RowOrder::kTransposed || part.tensor == nullptr) return false;
    ODMOE_ASSIGN_OR_RETURN(const bool fits, FitsQ4_0(*part.tensor));
    if (!fits) return false;
  }
  return !tensor.parts.empty();
}

int64_t PaddedVocabulary(const Architecture& architecture, const ToGgufOptions& options) {
  const int64_t size = architecture.config().vocab_size;
  if (options.pad_vocab == 0) return size;
  return (size + options.pad_vocab - 1) / options.pad_vocab * options.pad_vocab;
}

// Rows of zeros for the tokens that the padding adds, in the embedding and the head alike.
void PadVocabularyTensors(int64_t vocabulary_size, std::vector<OutputTensor>& tensors) {
  for (OutputTensor& tensor : tensors) {
    if (tensor.info.name != "token_embd.weight" && tensor.info.name != "output.weight") continue;
    if (tensor.info.ne.size() != 2) continue;  // by a user's map
    const int64_t missing = vocabulary_size - tensor.info.ne[1];
    if (missing <= 0) continue;
    tensor.parts.push_back({.columns = tensor.info.ne[0], .row_count = missing});
    tensor.info.ne[1] = vocabulary_size;
  }
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
  const int64_t vocabulary_size = PaddedVocabulary(architecture, options);
  const std::string size_key = absl::StrCat(architecture.name(), ".vocab_size");
  if (metadata.Find(size_key) != nullptr) {
    metadata.Set(size_key, GgufValue::U32(static_cast<uint32_t>(vocabulary_size)));
  }
  return AddTokenizerKeys(
      checkpoint,
      {.vocabulary_size = vocabulary_size, .pre_tokenizer = options.pre_tokenizer}, metadata);
}

// A folder without weights will do where none are wanted.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(FileSystem& fs,
                                                           const ToGgufOptions& options) {
  auto checkpoint = Checkpoint::Open(fs, options.folder);
  if (!options.vocab_only || !absl::IsNotFound(checkpoint.status())) return checkpoint;
  return Checkpoint::OpenWithoutWeights(fs, options.folder);
}

// By config.json, or, with a map, what the user calls it.
absl::StatusOr<std::unique_ptr<Architecture>> ChooseArchitecture(
    const Checkpoint& checkpoint, const ToGgufOptions& options,
    const std::vector<MetadataOverride>& overrides) {
  const std::string where = absl::StrCat(options.folder, "/config.json");
  if (options.tensor_map.empty()) return FindArchitecture(checkpoint.config(), where);
  for (const MetadataOverride& entry : overrides) {
    if (entry.key == "general.architecture") {
      return MakeNamedArchitecture(entry.value, checkpoint.config(), where);
    }
  }
  auto known = FindArchitecture(checkpoint.config(), where);
  if (known.ok()) return known;
  return absl::InvalidArgumentError(
      absl::StrCat(known.status().message(),
                   ". With a tensor map, say what it is: --metadata general.architecture=NAME"));
}

// The plan's tensors, by the architecture's rules or the user's map.
absl::Status MapPlan(FileSystem& fs, const ToGgufOptions& options, GgufPlan& plan) {
  if (options.tensor_map.empty()) {
    ODMOE_ASSIGN_OR_RETURN(plan.tensors, MapTensors(*plan.checkpoint, *plan.architecture));
  } else {
    ODMOE_ASSIGN_OR_RETURN(const TensorMap map, TensorMap::Read(fs, options.tensor_map));
    ODMOE_ASSIGN_OR_RETURN(plan.tensors, map.Map(*plan.checkpoint));
    plan.decisions = map.Text();
  }
  if (options.pad_vocab > 0) {
    PadVocabularyTensors(PaddedVocabulary(*plan.architecture, options), plan.tensors);
  }
  return absl::OkStatus();
}

// What ternary formats ask for, where the outtype is one.
absl::Status PlanTernary(FileSystem& fs, const ToGgufOptions& options, GgufPlan& plan) {
  constexpr uint64_t kMaxKernelConfigBytes = 64 * kKiB;
  const bool tiled = options.outtype == OutType::kTL1 || options.outtype == OutType::kTL2;
  if (!options.kernel_config.empty()) {
    if (!tiled) {
      return absl::InvalidArgumentError("a kernel configuration is for the outtypes tl1 and tl2");
    }
    ODMOE_ASSIGN_OR_RETURN(const std::string text,
                           ReadWholeFile(fs, options.kernel_config, kMaxKernelConfigBytes));
    ODMOE_ASSIGN_OR_RETURN(
        KernelConfig kernels,
        ParseKernelIni(options.outtype == OutType::kTL1 ? DType::kTL1 : DType::kTL2, text,
                       options.kernel_config));
    plan.kernels = std::make_unique<KernelConfig>(std::move(kernels));
  }
  if (!IsTernaryOutType(options.outtype)) return absl::OkStatus();
  return PlanTernaryTensors(plan.architecture->name(),
                            {.force = options.force_ternary, .kernels = plan.kernels.get()},
                            plan.tensors, plan.rounded);
}

}  // namespace

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

absl::Status LayOut(GgufPlan& plan) {
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(plan.header));
  ODMOE_ASSIGN_OR_RETURN(const std::string header, EncodeGgufHeader(plan.header));
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    plan.tensors[i].info = plan.header.tensors[i];
    plan.data_bytes += plan.header.tensors[i].bytes;
  }
  plan.file_bytes = header.size();
  if (!plan.header.tensors.empty()) {
    const GgufTensor& last = plan.header.tensors.back();
    plan.file_bytes += RoundUp(last.offset + last.bytes, kDefaultGgufAlignment);
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufPlan> PlanGguf(FileSystem& fs, const ToGgufOptions& options) {
  constexpr int64_t kMaxPadding = int64_t{1} << 20;
  if (options.pad_vocab < 0 || options.pad_vocab > kMaxPadding) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary padded to a multiple of ",
                                                   options.pad_vocab, ", expected 0 to ",
                                                   kMaxPadding));
  }
  GgufPlan plan;
  ODMOE_ASSIGN_OR_RETURN(const std::vector<MetadataOverride> overrides,
                         ReadMetadataOverrides(fs, options.metadata));
  ODMOE_ASSIGN_OR_RETURN(plan.checkpoint, OpenCheckpoint(fs, options));
  ODMOE_ASSIGN_OR_RETURN(plan.architecture,
                         ChooseArchitecture(*plan.checkpoint, options, overrides));
  if (!options.vocab_only) ODMOE_RETURN_IF_ERROR(MapPlan(fs, options, plan));
  ODMOE_ASSIGN_OR_RETURN(const uint32_t file_type,
                         ChooseFormats(*plan.checkpoint, options.outtype, plan.tensors));
  ODMOE_RETURN_IF_ERROR(PlanTernary(fs, options, plan));
  for (const OutputTensor& tensor : plan.tensors) plan.header.tensors.push_back(tensor.info);
  ODMOE_RETURN_IF_ERROR(BuildMetadata(plan, file_type, options, plan.header.metadata));
  if (plan.kernels != nullptr) {
    plan.header.metadata.Set(kKernelHashKey, GgufValue::String(KernelHash(*plan.kernels)));
  }
  ODMOE_RETURN_IF_ERROR(ApplyMetadataOverrides(overrides, plan.header.metadata));
  ODMOE_RETURN_IF_ERROR(LayOut(plan));
  return plan;
}

}  // namespace odmoe
