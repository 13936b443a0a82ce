#include "converter/convert.h"

#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/to_gguf.h"
#include "converter/progress.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {
namespace {

constexpr char kConvertStep[] = "convert";
constexpr char kSplitStep[] = "split";

FileSystem& FileSystemOf(const ConvertOptions& options) {
  return options.file_system != nullptr ? *options.file_system : PosixFileSystem();
}

bool IsGgufPath(absl::string_view path) { return absl::EndsWith(path, ".gguf"); }

// Without a slash at its end, so that names can be put beside it.
std::string Trimmed(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Where the GGUF file between two steps lies: beside the destination, on the same file system.
std::string IntermediatePath(const ConvertOptions& options) {
  return absl::StrCat(Trimmed(options.destination), ".partial.gguf");
}

ToGgufOptions ToGguf(const ConvertOptions& options, OutType outtype) {
  return {.folder = Trimmed(options.source),
          .outtype = outtype,
          .pre_tokenizer = options.pre_tokenizer};
}

// What kind of model `source` is, found out by looking.
enum class SourceFormat { kHuggingFace, kGguf };

absl::StatusOr<SourceFormat> FindSourceFormat(FileSystem& fs, const std::string& source) {
  if (LooksLikeCheckpoint(fs, source)) return SourceFormat::kHuggingFace;
  if (fs.ListDirectory(source).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not a Hugging Face directory: it has no config.json"));
  }
  const auto file = fs.OpenForRead(source);
  if (!file.ok()) return file.status();
  return SourceFormat::kGguf;
}

absl::Status CheckDisk(FileSystem& fs, const ConvertPlan& plan) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t free_bytes, fs.FreeBytes(plan.options.destination));
  if (plan.disk_bytes <= free_bytes) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("too little disk space for ", plan.options.destination, ": ",
                   FormatBytes(plan.disk_bytes), " (", plan.disk_bytes, " bytes) needed, ",
                   FormatBytes(free_bytes), " (", free_bytes, " bytes) free"));
}

void AddStep(ConvertPlan& plan, const char* name, uint64_t bytes) {
  plan.steps.push_back(name);
  plan.step_bytes.push_back(bytes);
}

// The model directory of a GGUF file that is still to be written takes its data, and pages and
// JSON for the experts; only the checkpoint's tensors are known, and they tell both.
uint64_t DirectoryBytes(const GgufPlan& gguf) {
  uint64_t bytes = gguf.data_bytes + 4 * (gguf.file_bytes - gguf.data_bytes) + kMiB;
  for (const GgufTensor& tensor : gguf.header.tensors) {
    if (absl::StrContains(tensor.name, ".ffn_gate_exps.")) {
      constexpr uint64_t kBytesPerExpert = 3 * kExpertDataAlignment;
      bytes += static_cast<uint64_t>(tensor.ne.back()) * kBytesPerExpert;
    }
  }
  return bytes;
}

absl::Status PlanFromHuggingFace(ConvertPlan& plan, FileSystem& fs, OutType outtype) {
  ODMOE_ASSIGN_OR_RETURN(const GgufPlan gguf, PlanGguf(fs, ToGguf(plan.options, outtype)));
  plan.architecture = std::string(gguf.architecture->name());
  AddStep(plan, kConvertStep, gguf.data_bytes);
  plan.disk_bytes = gguf.file_bytes;
  if (!IsGgufPath(plan.options.destination)) {
    AddStep(plan, kSplitStep, gguf.data_bytes);
    plan.disk_bytes += DirectoryBytes(gguf);
  }
  return absl::OkStatus();
}

absl::Status PlanFromGguf(ConvertPlan& plan, FileSystem& fs) {
  if (IsGgufPath(plan.options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "nothing to do from one GGUF file to another: ", plan.options.source, " to ",
        plan.options.destination));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<GgufModel> model,
                         GgufModel::Open(fs, plan.options.source));
  ODMOE_ASSIGN_OR_RETURN(const SplitPlan split, PlanSplit(*model));
  plan.architecture = split.architecture;
  AddStep(plan, kSplitStep, split.data_bytes);
  plan.disk_bytes = split.disk_bytes;
  return absl::OkStatus();
}

// The folder a GGUF destination goes into.
absl::Status CreateParent(FileSystem& fs, const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? absl::OkStatus() : fs.CreateDirectories(parent);
}

absl::Status RunConvert(const ConvertOptions& options, const std::string& path,
                        StepProgress& progress) {
  FileSystem& fs = FileSystemOf(options);
  ODMOE_ASSIGN_OR_RETURN(const OutType outtype, ParseOutType(options.outtype));
  ODMOE_ASSIGN_OR_RETURN(const GgufPlan gguf, PlanGguf(fs, ToGguf(options, outtype)));
  ODMOE_RETURN_IF_ERROR(CreateParent(fs, path));
  return WriteGguf(gguf, path, fs, progress);
}

absl::Status RunSplit(const ConvertOptions& options, const std::string& gguf,
                      StepProgress& progress) {
  FileSystem& fs = FileSystemOf(options);
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<GgufModel> model, GgufModel::Open(fs, gguf));
  ODMOE_ASSIGN_OR_RETURN(const SplitPlan split, PlanSplit(*model));
  return SplitGguf(*model, split, Trimmed(options.destination), fs, progress);
}

}  // namespace

absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options) {
  FileSystem& fs = FileSystemOf(options);
  if (options.source.empty() || options.destination.empty()) {
    return absl::InvalidArgumentError("a conversion needs a source and a destination");
  }
  ODMOE_ASSIGN_OR_RETURN(const OutType outtype, ParseOutType(options.outtype));
  ConvertPlan plan{.options = options};
  ODMOE_ASSIGN_OR_RETURN(const SourceFormat format, FindSourceFormat(fs, options.source));
  ODMOE_RETURN_IF_ERROR(format == SourceFormat::kHuggingFace
                            ? PlanFromHuggingFace(plan, fs, outtype)
                            : PlanFromGguf(plan, fs));
  ODMOE_RETURN_IF_ERROR(CheckDisk(fs, plan));
  return plan;
}

absl::Status RunConversion(const ConvertPlan& plan, const Cancellation* cancellation,
                           const std::function<void(const ConvertProgress&)>& on_progress) {
  const ConvertOptions& options = plan.options;
  FileSystem& fs = FileSystemOf(options);
  const bool through_gguf = plan.steps.size() > 1;
  const std::string intermediate = IntermediatePath(options);
  absl::Status status;
  for (size_t i = 0; i < plan.steps.size() && status.ok(); ++i) {
    StepProgress progress({.step = plan.steps[i],
                           .step_number = static_cast<int>(i) + 1,
                           .step_count = static_cast<int>(plan.steps.size()),
                           .total_bytes = plan.step_bytes[i]},
                          cancellation, &on_progress);
    if (plan.steps[i] == kConvertStep) {
      status = RunConvert(options, through_gguf ? intermediate : options.destination, progress);
    } else {
      status = RunSplit(options, through_gguf ? intermediate : options.source, progress);
    }
  }
  if (through_gguf) {
    const absl::Status removed = fs.Remove(intermediate);
    if (status.ok() && !removed.ok()) return removed;
  }
  return status;
}

}  // namespace odmoe
