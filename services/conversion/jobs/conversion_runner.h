// One job's work, step by step: check paths, plan, run, and tell how far it is.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/convert.h"
#include "converter/merge/merge.h"
#include "converter/quantize/quantize.h"
#include "converter/verify/verify.h"
#include "services/conversion/jobs/job_store.h"
#include "services/conversion/jobs/rooted_file_system.h"
#include "services/core/base/cancellation.h"
#include "services/core/generation/language_model.h"
#include "services/core/io/path_roots.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Opens a model directory in this process, to be evaluated.
using OpenModelFunction =
    std::function<absl::StatusOr<std::shared_ptr<LanguageModel>>(const std::string& directory)>;

// What does the work: the converter's functions, or a test's.
struct ConversionFunctions {
  std::function<absl::StatusOr<ConvertPlan>(const ConvertOptions&)> plan;
  std::function<absl::Status(const ConvertPlan&, const Cancellation*,
                             const std::function<void(const ConvertProgress&)>&, std::string*)>
      run;
  // Steps of a kind whose function is empty are refused.
  std::function<absl::StatusOr<MergeResult>(const MergeOptions&, const Cancellation*,
                                            const std::function<void(const ConvertProgress&)>&)>
      merge = nullptr;
  std::function<absl::StatusOr<VerifyReport>(const VerifyOptions&, const Cancellation*,
                                             const std::function<void(const ConvertProgress&)>&)>
      verify = nullptr;
  OpenModelFunction open_model = nullptr;  // for evaluate steps, and quantize steps' trials
  std::function<absl::StatusOr<QuantizePlan>(const QuantizeOptions&)> plan_quantization = nullptr;
  std::function<absl::Status(const QuantizePlan&, const Cancellation*,
                             const std::function<void(const ConvertProgress&)>&)>
      run_quantization = nullptr;
};

// Thread-safe. Errors name paths as the client gave them.
class ConversionRunner {
 public:
  ConversionRunner(PathRoots roots, ConversionFunctions functions);
  ConversionRunner(const ConversionRunner&) = delete;
  ConversionRunner& operator=(const ConversionRunner&) = delete;

  // Checks the steps, the paths' form and place, and that no step undoes another, and resolves the
  // paths. A relative path, where it is allowed, becomes absolute in the result's `given`.
  // INVALID_ARGUMENT, PERMISSION_DENIED, UNIMPLEMENTED.
  absl::StatusOr<NewJob> Resolve(const JobSpec& spec) const;

  // What can be known before starting, of each step that reads nothing an earlier one makes; see
  // PlanConversion for the errors.
  absl::Status Plan(const NewJob& job) const;

  // Runs one step of a claimed job. `on_progress` is called from the threads that do the work, one
  // call at a time, as often as they report. CANCELLED: asked to stop, and nothing partial is left,
  // unless the cancellation keeps work.
  absl::StatusOr<StepResult> RunStep(
      const ClaimedJob& job, size_t step, const Cancellation& cancellation,
      const std::function<void(const JobProgress&)>& on_progress) const;

 private:
  absl::StatusOr<std::vector<PathUse>> ResolvePaths(StepSpec& given) const;
  using OnProgress = std::function<void(const JobProgress&)>;
  absl::Status CheckOffered(const StepSpec& step) const;
  absl::StatusOr<StepResult> Run(const ConvertSpec& spec, const Cancellation& cancellation,
                                 const OnProgress& on_progress) const;
  absl::StatusOr<StepResult> Run(const MergeSpec& spec, const Cancellation& cancellation,
                                 const OnProgress& on_progress) const;
  absl::StatusOr<StepResult> Run(const VerifySpec& spec, const Cancellation& cancellation,
                                 const OnProgress& on_progress) const;
  absl::StatusOr<StepResult> Run(const EvaluateSpec& spec, const Cancellation& cancellation,
                                 const OnProgress& on_progress) const;
  absl::StatusOr<StepResult> Run(const QuantizeSpec& spec, const Cancellation& cancellation,
                                 const OnProgress& on_progress) const;
  ConvertOptions OptionsOf(const ConvertSpec& resolved) const;

  const PathRoots roots_;
  const ConversionFunctions functions_;
  const std::unique_ptr<RootedFileSystem> file_system_;  // null without roots
};

}  // namespace odmoe
