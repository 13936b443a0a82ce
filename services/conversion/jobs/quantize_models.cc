#include "services/conversion/jobs/quantize_models.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/evaluate_model.h"
#include "services/conversion/jobs/progress_meter.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

using Metrics = std::map<std::string, double>;

constexpr char kTrialPrompt[] = "Once upon a time";
constexpr int32_t kTrialTokens = 8;

// The models of a step, one after the other.
class ModelTrials {
 public:
  ModelTrials(const ConversionFunctions& functions, FileSystem* file_system,
              const QuantizeSpec& spec, const Cancellation& cancellation,
              const std::function<void(const JobProgress&)>& on_progress)
      : functions_(functions),
        file_system_(file_system),
        spec_(spec),
        cancellation_(cancellation),
        on_progress_(on_progress) {}

  // The model's metrics, without its type before their names.
  absl::StatusOr<Metrics> Try(const QuantizedModel& model, int number, int count) {
    std::string directory = model.path;
    const auto remove = absl::MakeCleanup([&] {
      std::error_code error;
      if (directory != model.path) std::filesystem::remove_all(directory, error);
    });
    if (absl::EndsWith(model.path, ".gguf")) {
      directory = absl::StrCat(model.path, ".trial");
      ODMOE_RETURN_IF_ERROR(MakeDirectory(model.files[0], directory));
    }
    Report({.phase = "try", .phase_number = number, .phase_count = count, .item = model.type});
    Metrics metrics;
    ODMOE_ASSIGN_OR_RETURN(metrics["generated_per_second"], Generate(directory));
    if (spec_.text.empty()) return metrics;
    ODMOE_ASSIGN_OR_RETURN(const Metrics measured, Measure(directory, model.type, number, count));
    metrics.insert(measured.begin(), measured.end());
    return metrics;
  }

 private:
  void Report(JobProgress progress) const { on_progress_(progress); }

  // A model directory of a GGUF file, or of the shards that begin with it.
  absl::Status MakeDirectory(const std::string& gguf, const std::string& directory) const {
    std::error_code error;
    std::filesystem::remove_all(directory, error);
    ConvertOptions options;
    options.source = gguf;
    options.destination = directory;
    options.concurrency = spec_.concurrency;
    options.restart = true;
    options.file_system = file_system_;
    ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, functions_.plan(options));
    return functions_.run(plan, &cancellation_, [](const ConvertProgress&) {}, nullptr);
  }

  // Tokens a second.
  absl::StatusOr<double> Generate(const std::string& directory) const {
    ODMOE_ASSIGN_OR_RETURN(const auto model, functions_.open_model(directory));
    GenerateRequest request;
    request.prompt.text = kTrialPrompt;
    request.max_tokens = kTrialTokens;
    request.sampling.temperature = 0.0f;
    request.logprobs = true;
    request.ignore_eos = true;
    bool finite = true;
    ODMOE_ASSIGN_OR_RETURN(
        const GenerateSummary summary,
        model->Generate(request, {.cancellation = &cancellation_}, [&](const TokenEvent& token) {
          finite &= std::isfinite(token.logprob);
          return true;
        }));
    if (cancellation_.cancelled()) return absl::CancelledError("asked to stop");
    if (!finite || summary.completion_tokens == 0) {
      return absl::DataLossError(absl::StrCat("it was tried, and generated ",
                                              summary.completion_tokens == 0
                                                  ? "nothing"
                                                  : "tokens whose log-probability is no number"));
    }
    return summary.timings.tokens_per_second;
  }

  absl::StatusOr<Metrics> Measure(const std::string& directory, const std::string& type, int number,
                                  int count) const {
    EvaluateSpec evaluate;
    evaluate.model = directory;
    evaluate.text = spec_.text;
    evaluate.base_model = spec_.base_model;
    FileSystem& files = file_system_ == nullptr ? PosixFileSystem() : *file_system_;
    ODMOE_ASSIGN_OR_RETURN(const StepResult result,
                           EvaluateModel(functions_.open_model, files, evaluate, cancellation_,
                                         [&](JobProgress progress) {
                                           progress.phase = "evaluate";
                                           progress.phase_number = number;
                                           progress.phase_count = count;
                                           progress.item = absl::StrCat(type, ", ", progress.item);
                                           on_progress_(progress);
                                         }));
    return result.metrics;
  }

  const ConversionFunctions& functions_;
  FileSystem* const file_system_;
  const QuantizeSpec& spec_;
  const Cancellation& cancellation_;
  const std::function<void(const JobProgress&)>& on_progress_;
};

absl::Status Of(const std::string& type, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(type, ": ", status.message()));
}

}  // namespace

QuantizeOptions ToQuantizeOptions(const QuantizeSpec& spec, FileSystem* file_system) {
  QuantizeOptions options;
  options.source = spec.source;
  options.destination = spec.destination;
  options.types = spec.types;
  options.batch = spec.batch;
  options.directories = spec.directories;
  options.tensors.pure = spec.pure;
  options.tensors.leave_output_tensor = spec.leave_output_tensor;
  options.tensors.allow_requantize = spec.allow_requantize;
  options.tensors.force_ternary = spec.force_ternary;
  options.tensors.output_tensor_type = spec.output_tensor_type;
  options.tensors.token_embedding_type = spec.token_embedding_type;
  options.tensors.tensor_types = spec.tensor_types;
  options.importance = spec.importance;
  options.keep_split = spec.keep_split;
  options.split_max_bytes = spec.split_max_bytes;
  options.concurrency = spec.concurrency;
  options.file_system = file_system;
  return options;
}

absl::StatusOr<StepResult> QuantizeModels(
    const ConversionFunctions& functions, FileSystem* file_system, const QuantizeSpec& spec,
    const Cancellation& cancellation, const std::function<void(const JobProgress&)>& on_progress) {
  const bool tries = !spec.text.empty() || (spec.batch && !spec.skip_trial);
  if (tries && !functions.open_model) {
    return absl::UnimplementedError("models are not run here: neither tried nor measured");
  }
  ODMOE_ASSIGN_OR_RETURN(const QuantizePlan plan,
                         functions.plan_quantization(ToQuantizeOptions(spec, file_system)));
  const int phases = 1 + (tries ? static_cast<int>(plan.models.size()) : 0);
  ProgressMeter meter({plan.data_bytes()});
  ODMOE_RETURN_IF_ERROR(
      functions.run_quantization(plan, &cancellation, [&](ConvertProgress progress) {
        progress.step_count = phases;
        on_progress(meter.Update(progress, absl::Now()));
      }));
  StepResult result;
  ModelTrials trials(functions, file_system, spec, cancellation, on_progress);
  int phase = 1;
  for (const QuantizedModel& model : plan.models) {
    const auto set = [&](const std::string& name, double value) {
      result.metrics[absl::StrCat(model.type, ".", name)] = value;
    };
    set("bytes", static_cast<double>(model.disk_bytes));
    set("bits_per_weight", model.bits_per_weight());
    result.bytes += model.disk_bytes;
    if (!tries) continue;
    const auto metrics = trials.Try(model, ++phase, phases);
    if (!metrics.ok()) return Of(model.type, metrics.status());
    for (const auto& [name, value] : *metrics) set(name, value);
  }
  return result;
}

}  // namespace odmoe
