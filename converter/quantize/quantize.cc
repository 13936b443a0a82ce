#include "converter/quantize/quantize.h"

#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "converter/output/free_disk.h"
#include "converter/output/write_output.h"
#include "converter/progress.h"
#include "converter/quantize/check_ternary.h"
#include "converter/quantize/importance_matrix.h"
#include "converter/quantize/quantize_source.h"
#include "converter/quantize/quantized_output.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr char kQuantizeStep[] = "quantize";

FileSystem& FileSystemOf(const QuantizeOptions& options) {
  return options.file_system != nullptr ? *options.file_system : PosixFileSystem();
}

bool IsGguf(absl::string_view path) { return absl::EndsWith(path, ".gguf"); }

std::string WithoutSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// What a model is called: its file or folder, without ending or shard's number.
std::string NameOf(const std::string& source) {
  const std::optional<GgufShardName> shard = ParseGgufShardName(source);
  const std::filesystem::path path(shard ? shard->prefix : WithoutSlash(source));
  const std::string name = path.filename().string();
  return std::string(absl::StripSuffix(name, ".gguf"));
}

// A quantization laid out, and what it refers to. Does not move.
struct Quantization {
  std::unique_ptr<QuantizeSource> source;
  std::unique_ptr<ImportanceMatrix> importance;
  std::unique_ptr<RandomAccessFile> importance_file;
  std::vector<std::unique_ptr<QuantizedOutput>> outputs;
  OutputPlan output;
};

absl::Status CheckOptions(const QuantizeOptions& options) {
  if (options.source.empty() || options.destination.empty()) {
    return absl::InvalidArgumentError("a quantization needs a source and a destination");
  }
  if (options.types.empty()) {
    return absl::InvalidArgumentError("a quantization needs a type; among them q4_k_m, q6_k, q8_0");
  }
  if (!options.batch && options.types.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(options.types.size(),
                                                   " types are for a folder of models, and ",
                                                   options.destination, " is to be one"));
  }
  if (options.batch && IsGguf(options.destination)) {
    return absl::InvalidArgumentError(absl::StrCat("several types make a folder of models, and ",
                                                   options.destination, " ends in .gguf"));
  }
  const bool splits = options.keep_split || options.split_max_bytes > 0;
  if (splits && (options.batch ? options.directories : !IsGguf(options.destination))) {
    return absl::InvalidArgumentError("only GGUF files are split, and these are model directories");
  }
  if (options.keep_split && options.split_max_bytes > 0) {
    return absl::InvalidArgumentError("shards are kept as they are, or cut by size, not both");
  }
  return ParseTypes(absl::StrJoin(options.types, ",")).status();
}

std::string PathOf(const QuantizeOptions& options, const std::string& type) {
  const std::string destination = WithoutSlash(options.destination);
  if (!options.batch) return destination;
  return absl::StrCat(destination, "/", NameOf(options.source), "-", type,
                      options.directories ? "" : ".gguf");
}

// Nothing of the source may be written over: it is read to the end.
absl::Status CheckNotSource(const QuantizeOptions& options, const Quantization& quantization) {
  std::vector<std::string> inputs = {options.source};
  for (const RandomAccessFile* file : quantization.source->files()) inputs.push_back(file->path());
  for (const auto& output : quantization.outputs) {
    std::vector<std::string> paths = {output->options().path};
    for (const OutputFile& file : output->plan().files) paths.push_back(file.path);
    for (const std::string& path : paths) {
      for (const std::string& input : inputs) {
        std::error_code error;
        if (path != input && !std::filesystem::equivalent(path, input, error)) continue;
        return absl::InvalidArgumentError(
            absl::StrCat(path,
                         " is the source, or a part of it, and would be written over; give another "
                         "destination"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status OpenImportance(FileSystem& fs, const std::string& path, Quantization& quantization) {
  if (path.empty()) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(quantization.importance, ImportanceMatrix::Open(fs, path));
  ODMOE_ASSIGN_OR_RETURN(quantization.importance_file, fs.OpenForRead(path));
  return absl::OkStatus();
}

absl::Status Finish(const QuantizeOptions& options, Quantization& quantization) {
  OutputPlan& output = quantization.output;
  output.destination = WithoutSlash(options.destination);
  output.journal_path =
      JournalPath(output.destination, !options.batch && IsGguf(options.destination));
  std::vector<const RandomAccessFile*> sources = quantization.source->files();
  if (quantization.importance_file != nullptr)
    sources.push_back(quantization.importance_file.get());
  // The formats are in the headers; beside those nothing decides the bytes.
  return SetFingerprint(output, absl::StrCat(kQuantizeStep, "\n", quantization.source->decisions()),
                        sources);
}

absl::StatusOr<std::unique_ptr<Quantization>> Prepare(const QuantizeOptions& options) {
  ODMOE_RETURN_IF_ERROR(CheckOptions(options));
  ODMOE_RETURN_IF_ERROR(CheckMixOptions(options.tensors));
  FileSystem& fs = FileSystemOf(options);
  auto quantization = std::make_unique<Quantization>();
  ODMOE_ASSIGN_OR_RETURN(quantization->source,
                         QuantizeSource::Open(fs, WithoutSlash(options.source)));
  if (options.keep_split && quantization->source->form() != QuantizeSourceForm::kGguf) {
    return absl::InvalidArgumentError(absl::StrCat(
        "only the shards of a GGUF file can be kept, and ", options.source, " is none"));
  }
  ODMOE_RETURN_IF_ERROR(OpenImportance(fs, options.importance, *quantization));
  const GgufModel& model = quantization->source->model();
  for (const std::string& type : options.types) {
    ODMOE_ASSIGN_OR_RETURN(const MixInfo mix, FindMix(type));
    ODMOE_ASSIGN_OR_RETURN(
        quantization->outputs.emplace_back(),
        QuantizedOutput::Plan(model, {.mix = mix,
                                      .tensors = options.tensors,
                                      .path = PathOf(options, std::string(mix.name)),
                                      .keep_split = options.keep_split,
                                      .split_max_bytes = options.split_max_bytes,
                                      .importance = quantization->importance.get()}));
    if (options.tensors.force_ternary) continue;
    ODMOE_RETURN_IF_ERROR(CheckTernary(model, *quantization->outputs.back()));
  }
  ODMOE_RETURN_IF_ERROR(CheckNotSource(options, *quantization));
  ODMOE_ASSIGN_OR_RETURN(quantization->output,
                         JoinOutputs(model, quantization->importance.get(), quantization->outputs));
  ODMOE_RETURN_IF_ERROR(Finish(options, *quantization));
  return quantization;
}

QuantizedModel Describe(const QuantizedOutput& output) {
  QuantizedModel model{.type = std::string(output.options().mix.name),
                       .path = output.options().path,
                       .disk_bytes = output.disk_bytes(),
                       .fallback_count = output.fallback_count()};
  for (size_t i = 0; i < output.tensors().size(); ++i) {
    const GgufTensor& tensor = output.tensors()[i];
    model.tensors.push_back({.name = tensor.name,
                             .source_format = std::string(Info(output.sources()[i]->dtype).name),
                             .format = std::string(Info(tensor.dtype).name),
                             .shape = {tensor.ne.rbegin(), tensor.ne.rend()},
                             .bytes = tensor.bytes});
    model.data_bytes += tensor.bytes;
    model.elements += tensor.columns() * tensor.rows();
  }
  if (!IsGguf(model.path)) model.files.push_back(model.path);
  for (const OutputFile& file : output.plan().files) {
    if (IsGguf(model.path)) model.files.push_back(file.path);
  }
  return model;
}

}  // namespace

ConvertPlan QuantizePlan::Describe(const QuantizedModel& model) const {
  ConvertPlan plan{.architecture = architecture,
                   .outputs = model.files,
                   .steps = {kQuantizeStep},
                   .step_bytes = {model.data_bytes},
                   .disk_bytes = model.disk_bytes,
                   .resumed_bytes = models.size() == 1 ? resumed_bytes : 0,
                   .tensors = model.tensors};
  plan.options.source = options.source;
  plan.options.destination = model.path;
  plan.options.concurrency = options.concurrency;
  return plan;
}

absl::StatusOr<QuantizePlan> PlanQuantization(const QuantizeOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Quantization> quantization, Prepare(options));
  QuantizePlan plan{.options = options};
  ODMOE_ASSIGN_OR_RETURN(plan.architecture, quantization->source->model().metadata().GetStringOr(
                                                "general.architecture", ""));
  uint64_t disk_bytes = 0;
  for (const auto& output : quantization->outputs) {
    plan.models.push_back(Describe(*output));
    disk_bytes += output->disk_bytes();
  }
  FileSystem& fs = FileSystemOf(options);
  ODMOE_ASSIGN_OR_RETURN(const UnfinishedOutput unfinished,
                         FindUnfinishedOutput(quantization->output, fs,
                                              ToEarlierWork(options.restart, false)));
  plan.resumed_bytes = unfinished.done_bytes;
  ODMOE_RETURN_IF_ERROR(CheckFreeDisk(fs, options.destination, disk_bytes, unfinished.disk_bytes));
  return plan;
}

absl::Status RunQuantization(const QuantizePlan& plan, const Cancellation* cancellation,
                             const std::function<void(const ConvertProgress&)>& on_progress) {
  const QuantizeOptions& options = plan.options;
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Quantization> quantization, Prepare(options));
  StepProgress progress({.step = kQuantizeStep,
                         .step_number = 1,
                         .step_count = 1,
                         .total_bytes = quantization->output.data_bytes()},
                        cancellation, &on_progress);
  return WriteOutput(quantization->output, FileSystemOf(options),
                     {.concurrency = options.concurrency,
                      .earlier = ToEarlierWork(options.restart, false)},
                     progress);
}

absl::StatusOr<std::vector<std::string>> ParseTypes(absl::string_view text) {
  std::vector<std::string> types;
  std::set<Mix> seen;
  for (const absl::string_view type : absl::StrSplit(text, ',')) {
    ODMOE_ASSIGN_OR_RETURN(const MixInfo mix, FindMix(type));
    if (!seen.insert(mix.mix).second) {
      return absl::InvalidArgumentError(absl::StrCat("type ", mix.name, " is named twice"));
    }
    types.emplace_back(mix.name);
  }
  return types;
}

}  // namespace odmoe
