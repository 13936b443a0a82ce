#include "converter/convert.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "converter/huggingface/gguf_output.h"
#include "converter/huggingface/lora.h"
#include "converter/huggingface/to_gguf.h"
#include "converter/output/free_disk.h"
#include "converter/output/write_output.h"
#include "converter/progress.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {
namespace {

constexpr char kConvertStep[] = "convert";
constexpr char kSplitStep[] = "split";

FileSystem& FileSystemOf(const ConvertOptions& options) {
  return options.file_system != nullptr ? *options.file_system : PosixFileSystem();
}

bool IsGgufPath(absl::string_view path) { return absl::EndsWith(path, ".gguf"); }

EarlierWork EarlierWorkOf(const ConvertOptions& options) {
  return ToEarlierWork(options.restart, options.replace_other);
}

// Without a slash at its end, so that names can be put beside it.
std::string Trimmed(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// A conversion laid out, and what its output refers to. Does not move: its parts point at each
// other.
struct Conversion {
  std::string step;
  std::string architecture;
  std::optional<GgufPlan> gguf;        // from Hugging Face
  std::unique_ptr<GgufModel> model;  // the GGUF file, there or planned
  std::optional<SplitPlan> split;      // to a model directory
  OutputPlan output;
  uint64_t data_bytes = 0;
  uint64_t disk_bytes = 0;
};

// What decides the output beside the source and the layout.
std::string OptionsText(const ConvertOptions& options) {
  return absl::StrCat(options.outtype, "\n", options.pre_tokenizer, "\n", options.split_max_bytes,
                      "\n", options.vocab_only, "\n", options.pad_vocab, "\n",
                      options.force_ternary);
}

// What kind of model `source` is, found out by looking.
enum class SourceFormat { kHuggingFace, kAdapter, kGguf };

absl::StatusOr<SourceFormat> FindSourceFormat(FileSystem& fs, const std::string& source) {
  // An adapter's folder may repeat its base model's config.json, and a model's holds no adapter.
  if (LooksLikeAdapter(fs, source)) return SourceFormat::kAdapter;
  if (LooksLikeCheckpoint(fs, source)) return SourceFormat::kHuggingFace;
  if (fs.ListDirectory(source).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not a Hugging Face directory: it has no config.json"));
  }
  const auto file = fs.OpenForRead(source);
  if (!file.ok()) return file.status();
  return SourceFormat::kGguf;
}

// Lays out a model directory from the GGUF file that the conversion has open.
absl::Status PrepareDirectory(const ConvertOptions& options, absl::string_view decisions,
                              absl::Span<const RandomAccessFile* const> sources,
                              Conversion& conversion) {
  ODMOE_ASSIGN_OR_RETURN(conversion.split, PlanSplit(*conversion.model));
  ODMOE_ASSIGN_OR_RETURN(conversion.output, PlanModelDirectory(*conversion.model, *conversion.split,
                                                               Trimmed(options.destination)));
  conversion.disk_bytes = conversion.split->disk_bytes;
  return SetFingerprint(conversion.output, decisions, sources);
}

absl::StatusOr<GgufPlan> PlanModel(const ConvertOptions& options, FileSystem& fs) {
  ODMOE_ASSIGN_OR_RETURN(const OutType outtype, ParseOutType(options.outtype));
  if (!options.base_model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a base model is for LoRA adapters, and ", options.source, " is none: it has no "
        "adapter_config.json"));
  }
  return PlanGguf(fs, {.folder = Trimmed(options.source),
                       .outtype = outtype,
                       .pre_tokenizer = options.pre_tokenizer,
                       .vocab_only = options.vocab_only,
                       .pad_vocab = options.pad_vocab,
                       .tensor_map = options.tensor_map,
                       .metadata = options.metadata,
                       .force_ternary = options.force_ternary,
                       .kernel_config = options.kernel_config});
}

absl::StatusOr<GgufPlan> PlanAdapter(const ConvertOptions& options, FileSystem& fs) {
  ODMOE_ASSIGN_OR_RETURN(const OutType outtype, ParseOutType(options.outtype));
  if (IsTernaryOutType(outtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.source, " is a LoRA adapter, which is not ternary, as ",
                     options.outtype, " is"));
  }
  if (!options.tensor_map.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.source, " is a LoRA adapter, to which no tensor map applies"));
  }
  if (!IsGgufPath(options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.source, " is a LoRA adapter, which becomes a GGUF file, and ", options.destination,
        " does not end in .gguf"));
  }
  return PlanLora(fs, {.folder = Trimmed(options.source),
                       .base_model = Trimmed(options.base_model),
                       .outtype = outtype,
                       .metadata = options.metadata});
}

absl::Status PrepareFromHuggingFace(const ConvertOptions& options, FileSystem& fs, bool adapter,
                                    Conversion& conversion) {
  ODMOE_ASSIGN_OR_RETURN(conversion.gguf,
                         adapter ? PlanAdapter(options, fs) : PlanModel(options, fs));
  conversion.step = kConvertStep;
  conversion.architecture = std::string(conversion.gguf->architecture->name());
  // Some of config.json decides weights and leaves no other trace in the header.
  const std::string decisions =
      absl::StrCat(OptionsText(options), "\n", conversion.gguf->checkpoint->config().dump(),
                   "\n", conversion.gguf->decisions);
  if (IsGgufPath(options.destination)) {
    ODMOE_ASSIGN_OR_RETURN(conversion.output,
                           PlanGgufOutput(*conversion.gguf, options.destination,
                                          options.split_max_bytes, decisions));
    for (const OutputFile& file : conversion.output.files) conversion.disk_bytes += file.bytes;
    return absl::OkStatus();
  }
  if (conversion.gguf->kernels != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.outtype, " is BitNet's runtime's, which reads GGUF files, and ",
        options.destination, " does not end in .gguf"));
  }
  // Split as the GGUF file would be, without writing that: both ways give the same bytes.
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> planned,
                         OpenPlannedGguf(*conversion.gguf, options.source));
  ODMOE_ASSIGN_OR_RETURN(conversion.model, GgufModel::Open(fs, std::move(planned)));
  return PrepareDirectory(options, decisions, WeightFiles(*conversion.gguf->checkpoint),
                          conversion);
}

absl::Status PrepareFromGguf(const ConvertOptions& options, FileSystem& fs,
                             Conversion& conversion) {
  if (!options.tensor_map.empty() || !options.metadata.empty() || !options.base_model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a tensor map, metadata and a base model are for Hugging Face directories, and ",
        options.source, " is a GGUF file"));
  }
  if (IsGgufPath(options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "nothing to do from one GGUF file to another: ", options.source, " to ",
        options.destination));
  }
  if (options.vocab_only || options.pad_vocab != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "only a Hugging Face directory's vocabulary can be written alone or padded, and ",
        options.source, " is a GGUF file"));
  }
  ODMOE_ASSIGN_OR_RETURN(conversion.model, GgufModel::Open(fs, options.source));
  conversion.step = kSplitStep;
  ODMOE_RETURN_IF_ERROR(PrepareDirectory(options, OptionsText(options),
                                         ModelFiles(*conversion.model), conversion));
  conversion.architecture = conversion.split->architecture;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Conversion>> Prepare(const ConvertOptions& options) {
  FileSystem& fs = FileSystemOf(options);
  if (options.source.empty() || options.destination.empty()) {
    return absl::InvalidArgumentError("a conversion needs a source and a destination");
  }
  if (options.split_max_bytes > 0 && !IsGgufPath(options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a split size is for GGUF files, and ", options.destination, " does not end in .gguf"));
  }
  if (options.vocab_only && !IsGgufPath(options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a vocabulary alone is a GGUF file, and ", options.destination, " does not end in .gguf"));
  }
  ODMOE_RETURN_IF_ERROR(ParseOutType(options.outtype).status());
  auto conversion = std::make_unique<Conversion>();
  ODMOE_ASSIGN_OR_RETURN(const SourceFormat format, FindSourceFormat(fs, options.source));
  const bool adapter = format == SourceFormat::kAdapter;
  ODMOE_RETURN_IF_ERROR(format == SourceFormat::kGguf
                            ? PrepareFromGguf(options, fs, *conversion)
                            : PrepareFromHuggingFace(options, fs, adapter, *conversion));
  conversion->data_bytes = conversion->output.data_bytes();
  return conversion;
}

std::string StoredFormat(const OutputTensor& tensor) {
  if (tensor.parts.empty()) return "";
  const CheckpointTensor& source = *tensor.parts[0].tensor;
  switch (source.encoding) {
    case WeightEncoding::kPlain:
      return std::string(Info(source.dtype).name);
    case WeightEncoding::kFp8:
      return "f8_e4m3";
    case WeightEncoding::kInt4:
      return "int4";
    case WeightEncoding::kTernaryPacked:
      return "ternary";
    case WeightEncoding::kTernaryRounded:
      return absl::StrCat(Info(source.dtype).name, ", rounded");
  }
  return "";
}

PlannedTensor Describe(const GgufTensor& tensor, std::string source_format) {
  return {.name = tensor.name,
          .source_format = std::move(source_format),
          .format = std::string(Info(tensor.dtype).name),
          .shape = {tensor.ne.rbegin(), tensor.ne.rend()},
          .bytes = tensor.bytes};
}

std::vector<PlannedTensor> TensorsOf(const Conversion& conversion) {
  std::vector<PlannedTensor> tensors;
  if (conversion.gguf) {
    for (const OutputTensor& tensor : conversion.gguf->tensors) {
      tensors.push_back(Describe(tensor.info, StoredFormat(tensor)));
    }
  } else {
    for (const GgufTensor& tensor : conversion.model->tensors()) {
      tensors.push_back(Describe(tensor, std::string(Info(tensor.dtype).name)));
    }
  }
  return tensors;
}

}  // namespace

absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Conversion> conversion, Prepare(options));
  ConvertPlan plan{.options = options,
                   .architecture = conversion->architecture,
                   .steps = {conversion->step},
                   .step_bytes = {conversion->data_bytes},
                   .disk_bytes = conversion->disk_bytes,
                   .note = conversion->gguf ? conversion->gguf->architecture->Note() : "",
                   .tensors = TensorsOf(*conversion)};
  if (IsGgufPath(options.destination)) {
    for (const OutputFile& file : conversion->output.files) plan.outputs.push_back(file.path);
  } else {
    plan.outputs.push_back(options.destination);
  }
  FileSystem& fs = FileSystemOf(options);
  ODMOE_ASSIGN_OR_RETURN(
      const UnfinishedOutput unfinished,
      FindUnfinishedOutput(conversion->output, fs, EarlierWorkOf(options)));
  plan.resumed_bytes = unfinished.done_bytes;
  ODMOE_RETURN_IF_ERROR(
      CheckFreeDisk(fs, options.destination, plan.disk_bytes, unfinished.disk_bytes));
  return plan;
}

absl::Status RunConversion(const ConvertPlan& plan, const Cancellation* cancellation,
                           const std::function<void(const ConvertProgress&)>& on_progress,
                           std::string* digest) {
  const ConvertOptions& options = plan.options;
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Conversion> conversion, Prepare(options));
  StepProgress progress({.step = conversion->step,
                         .step_number = 1,
                         .step_count = 1,
                         .total_bytes = conversion->data_bytes},
                        cancellation, &on_progress);
  return WriteOutput(conversion->output, FileSystemOf(options),
                     {.concurrency = options.concurrency, .earlier = EarlierWorkOf(options)},
                     progress, digest);
}

absl::StatusOr<uint64_t> ParseSplitSize(absl::string_view text) {
  uint64_t unit = 1, count = 0, bytes = 0;
  absl::string_view digits = text;
  for (const auto& [letter, value] :
       {std::pair{"K", uint64_t{1000}}, std::pair{"M", uint64_t{1000000}},
        std::pair{"G", uint64_t{1000000000}}}) {
    if (absl::ConsumeSuffix(&digits, letter)) unit = value;
  }
  const bool plain = !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  if (!plain || !absl::SimpleAtoi(digits, &count) || __builtin_mul_overflow(count, unit, &bytes) ||
      bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a size: expected a number of bytes, or one with K, M or G (powers of ",
        "1000) behind it"));
  }
  return bytes;
}

bool HasUnfinishedConversion(FileSystem& fs, const std::string& destination) {
  return fs.OpenForRead(JournalPath(Trimmed(destination), IsGgufPath(destination))).ok();
}

}  // namespace odmoe
