#include "services/conversion/jobs/conversion_runner.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/convert_options.h"
#include "services/conversion/jobs/evaluate_model.h"
#include "services/conversion/jobs/job_spec_json.h"
#include "services/conversion/jobs/progress_meter.h"
#include "services/conversion/jobs/quantize_models.h"
#include "services/conversion/jobs/step_paths.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_index.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxOuttypeBytes = 32;

// A path the client can use later from another folder and another process.
absl::StatusOr<std::string> Absolute(const std::string& path) {
  std::error_code error;
  std::string result = fs::absolute(path, error).string();
  if (error) return absl::InvalidArgumentError(error.message());
  return result;
}

// The converter names what it opened; the client knows it by the name it gave.
absl::Status InGivenNames(const absl::Status& status, const std::vector<PathUse>& paths) {
  if (status.ok()) return status;
  std::vector<std::pair<std::string, std::string>> names;
  for (const PathUse& use : paths) names.emplace_back(use.resolved, use.given);
  return absl::Status(status.code(), absl::StrReplaceAll(status.message(), names));
}

absl::Status CheckSpec(const StepSpec& step) {
  // As the job database keeps it; also finds text that is not UTF-8.
  ODMOE_RETURN_IF_ERROR(StepSpecToJson(step).status());
  const auto* convert = std::get_if<ConvertSpec>(&step);
  if (convert == nullptr || convert->outtype.size() <= kMaxOuttypeBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("outtype has ", convert->outtype.size(),
                                                 " bytes, at most ", kMaxOuttypeBytes,
                                                 " are allowed"));
}

// Each of the paths written is written by one step only, and after all that read what was there.
absl::Status CheckOrder(const std::vector<std::vector<PathUse>>& steps) {
  for (size_t writer = 0; writer < steps.size(); ++writer) {
    for (const PathUse& written : steps[writer]) {
      if (!written.written) continue;
      for (size_t other = 0; other <= writer; ++other) {
        for (const PathUse& use : steps[other]) {
          if (&use == &written) continue;
          const bool clash =
              IsSameOrBelow(use.resolved, written.resolved) ||
              (use.written && IsSameOrBelow(written.resolved, use.resolved));
          if (clash) {
            return absl::InvalidArgumentError(
                absl::StrCat("step ", writer + 1, " would write over ", use.given, ", which step ",
                             other + 1, use.written ? " writes" : " reads"));
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

// An earlier step makes what this one reads, so that it cannot be planned yet.
bool ReadsEarlierOutput(const std::vector<std::vector<PathUse>>& steps, size_t step) {
  for (size_t earlier = 0; earlier < step; ++earlier) {
    for (const PathUse& written : steps[earlier]) {
      if (!written.written) continue;
      for (const PathUse& use : steps[step]) {
        if (!use.written && IsSameOrBelow(use.resolved, written.resolved)) return true;
      }
    }
  }
  return false;
}

uint64_t BytesOf(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    const uint64_t bytes = fs::file_size(path, error);
    return error ? 0 : bytes;
  }
  uint64_t bytes = 0;
  for (auto entry = fs::recursive_directory_iterator(path, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code entry_error;
    if (entry->is_regular_file(entry_error)) bytes += entry->file_size(entry_error);
  }
  return bytes;
}

}  // namespace

ConversionRunner::ConversionRunner(PathRoots roots, ConversionFunctions functions)
    : roots_(std::move(roots)),
      functions_(std::move(functions)),
      file_system_(roots_.restricted()
                       ? std::make_unique<RootedFileSystem>(roots_)
                       : nullptr) {}

absl::StatusOr<std::vector<PathUse>> ConversionRunner::ResolvePaths(StepSpec& given) const {
  std::vector<PathUse> uses;
  for (const StepPath& path : PathsOf(given)) {
    PathUse use;
    ODMOE_ASSIGN_OR_RETURN(use.resolved, roots_.Resolve(*path.path, path.field));
    ODMOE_ASSIGN_OR_RETURN(*path.path, Absolute(*path.path));
    use.given = *path.path;
    use.written = path.written;
    uses.push_back(std::move(use));
  }
  return uses;
}

absl::StatusOr<NewJob> ConversionRunner::Resolve(const JobSpec& spec) const {
  if (spec.steps.empty() || spec.steps.size() > JobSpec::kMaxSteps) {
    return absl::InvalidArgumentError(absl::StrCat("steps has ", spec.steps.size(),
                                                   " entries, expected 1 to ",
                                                   JobSpec::kMaxSteps));
  }
  if (spec.priority < -JobSpec::kMaxPriority || spec.priority > JobSpec::kMaxPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority ", spec.priority,
                                                   " is not between -", JobSpec::kMaxPriority,
                                                   " and ", JobSpec::kMaxPriority));
  }
  NewJob job;
  job.given = spec;
  for (StepSpec& step : job.given.steps) {
    ODMOE_RETURN_IF_ERROR(CheckOffered(step));
    if (auto* convert = std::get_if<ConvertSpec>(&step); convert != nullptr) {
      if (convert->outtype.empty()) convert->outtype = "auto";
    }
    ODMOE_ASSIGN_OR_RETURN(job.paths.emplace_back(), ResolvePaths(step));
    ODMOE_RETURN_IF_ERROR(CheckSpec(step));
  }
  ODMOE_RETURN_IF_ERROR(CheckOrder(job.paths));
  return job;
}

ConvertOptions ConversionRunner::OptionsOf(const ConvertSpec& resolved) const {
  ConvertOptions options = ToConvertOptions(resolved);
  options.file_system = file_system_.get();
  return options;
}

absl::Status ConversionRunner::Plan(const NewJob& job) const {
  for (size_t i = 0; i < job.given.steps.size(); ++i) {
    if (ReadsEarlierOutput(job.paths, i)) continue;
    const StepSpec resolved = WithPaths(job.given.steps[i], job.paths[i]);
    if (const auto* convert = std::get_if<ConvertSpec>(&resolved)) {
      const absl::Status planned = functions_.plan(OptionsOf(*convert)).status();
      ODMOE_RETURN_IF_ERROR(InGivenNames(planned, job.paths[i]));
      continue;
    }
    if (const auto* quantize = std::get_if<QuantizeSpec>(&resolved)) {
      const absl::Status planned =
          functions_.plan_quantization(ToQuantizeOptions(*quantize, file_system_.get())).status();
      ODMOE_RETURN_IF_ERROR(InGivenNames(planned, job.paths[i]));
    }
    for (const PathUse& use : job.paths[i]) {
      std::error_code error;
      if (!use.written && !fs::exists(use.resolved, error)) {
        return absl::NotFoundError(absl::StrCat(use.given, ": no such file"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StepResult> ConversionRunner::RunStep(
    const ClaimedJob& job, size_t step, const Cancellation& cancellation,
    const std::function<void(const JobProgress&)>& on_progress) const {
  // The disk may have changed since the job was submitted: links, files, free space.
  StepSpec given = job.job.spec.steps[step];
  ODMOE_ASSIGN_OR_RETURN(const std::vector<PathUse> now, ResolvePaths(given));
  bool same = now.size() == job.paths[step].size();
  for (size_t i = 0; same && i < now.size(); ++i) {
    same = now[i].resolved == job.paths[step][i].resolved;
  }
  if (!same) {
    return absl::PermissionDeniedError("a path leads elsewhere than when the job was submitted");
  }
  const StepSpec resolved = WithPaths(given, now);
  // Another program's queue may have taken the job.
  ODMOE_RETURN_IF_ERROR(CheckOffered(given));
  absl::StatusOr<StepResult> result = std::visit(
      [&](const auto& spec) { return Run(spec, cancellation, on_progress); }, resolved);
  if (!result.ok()) return InGivenNames(result.status(), now);
  return result;
}

absl::Status ConversionRunner::CheckOffered(const StepSpec& step) const {
  if (std::holds_alternative<ConvertSpec>(step)) return absl::OkStatus();
  const bool offered =
      std::holds_alternative<MergeSpec>(step)    ? bool(functions_.merge)
      : std::holds_alternative<VerifySpec>(step) ? bool(functions_.verify)
      : std::holds_alternative<QuantizeSpec>(step)
          ? functions_.plan_quantization && functions_.run_quantization
                                                 : bool(functions_.open_model);
  if (offered) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("steps of kind ", KindOf(step), " are not run here"));
}

absl::StatusOr<StepResult> ConversionRunner::Run(const ConvertSpec& spec,
                                                 const Cancellation& cancellation,
                                                 const OnProgress& on_progress) const {
  ODMOE_ASSIGN_OR_RETURN(const ConvertPlan plan, functions_.plan(OptionsOf(spec)));
  ProgressMeter meter(plan.step_bytes);
  StepResult result;
  ODMOE_RETURN_IF_ERROR(functions_.run(
      plan, &cancellation,
      [&](const ConvertProgress& progress) { on_progress(meter.Update(progress, absl::Now())); },
      &result.digest));
  for (const std::string& output : plan.outputs) result.bytes += BytesOf(output);
  if (fs::is_directory(spec.destination)) {
    FileSystem& files = file_system_ == nullptr ? PosixFileSystem() : *file_system_;
    const absl::StatusOr<ModelIndex> index = ReadModelIndex(files, spec.destination);
    result.digest = index.ok() ? index->model_digest : "";
  }
  return result;
}

absl::StatusOr<StepResult> ConversionRunner::Run(const QuantizeSpec& spec,
                                                 const Cancellation& cancellation,
                                                 const OnProgress& on_progress) const {
  return QuantizeModels(functions_, file_system_.get(), spec, cancellation, on_progress);
}

absl::StatusOr<StepResult> ConversionRunner::Run(const MergeSpec& spec,
                                                 const Cancellation& cancellation,
                                                 const OnProgress& on_progress) const {
  MergeOptions options;
  options.directory = spec.source;
  options.destination = spec.destination;
  options.verify = spec.verify;
  options.concurrency = spec.concurrency;
  options.replace_other = spec.restart;
  options.file_system = file_system_.get();
  ProgressMeter meter({});
  ODMOE_ASSIGN_OR_RETURN(
      MergeResult merged,
      functions_.merge(options, &cancellation, [&](const ConvertProgress& progress) {
        on_progress(meter.Update(progress, absl::Now()));
      }));
  StepResult result;
  result.bytes = merged.bytes;
  result.digest = std::move(merged.digest);
  return result;
}

absl::StatusOr<StepResult> ConversionRunner::Run(const VerifySpec& spec,
                                                 const Cancellation& cancellation,
                                                 const OnProgress& on_progress) const {
  VerifyOptions options;
  options.path = spec.source;
  options.concurrency = spec.concurrency;
  options.file_system = file_system_.get();
  ProgressMeter meter({});
  ODMOE_ASSIGN_OR_RETURN(
      const VerifyReport report,
      functions_.verify(options, &cancellation, [&](const ConvertProgress& progress) {
        on_progress(meter.Update(progress, absl::Now()));
      }));
  if (!report.intact()) {
    const Damage& first = report.damages.front();
    return absl::DataLossError(absl::StrCat(report.damage_count, " damaged, first ", first.item,
                                            ": ", first.status.message()));
  }
  StepResult result;
  result.bytes = report.checked_bytes;
  result.metrics = {{"experts", double(report.expert_count)},
                    {"tensors", double(report.tensor_count)},
                    {"hashes", double(report.hashed_count)}};
  return result;
}

absl::StatusOr<StepResult> ConversionRunner::Run(const EvaluateSpec& spec,
                                                 const Cancellation& cancellation,
                                                 const OnProgress& on_progress) const {
  FileSystem& files = file_system_ == nullptr ? PosixFileSystem() : *file_system_;
  return EvaluateModel(functions_.open_model, files, spec, cancellation, on_progress);
}

}  // namespace odmoe
