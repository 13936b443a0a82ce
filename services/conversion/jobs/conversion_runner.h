// One job's work: check its paths, plan, run, and tell how far it is.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/convert.h"
#include "services/conversion/jobs/job_store.h"
#include "services/conversion/jobs/rooted_file_system.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/path_roots.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// What does the work: converter/convert.h's functions, or a test's.
struct ConversionFunctions {
  std::function<absl::StatusOr<ConvertPlan>(const ConvertOptions&)> plan;
  std::function<absl::Status(const ConvertPlan&, const Cancellation*,
                             const std::function<void(const ConvertProgress&)>&)>
      run;
};

// Thread-safe. Errors name paths as the client gave them.
class ConversionRunner {
 public:
  ConversionRunner(PathRoots roots, ConversionFunctions functions);
  ConversionRunner(const ConversionRunner&) = delete;
  ConversionRunner& operator=(const ConversionRunner&) = delete;

  // Checks the paths' form and place and resolves them. A relative path, where it is allowed,
  // becomes absolute in the result's `given`. INVALID_ARGUMENT, PERMISSION_DENIED.
  absl::StatusOr<NewJob> Resolve(const ConvertSpec& spec) const;

  // What can be known before starting; see PlanConversion for the errors.
  absl::StatusOr<ConvertPlan> Plan(const NewJob& job) const;

  // Runs a claimed job to its end. `on_progress` is called on the calling thread, as often as the
  // conversion reports. CANCELLED: asked to stop, and nothing partial is left.
  absl::Status Run(const ClaimedJob& job, const Cancellation& cancellation,
                   const std::function<void(const JobProgress&)>& on_progress) const;

 private:
  const PathRoots roots_;
  const ConversionFunctions functions_;
  const std::unique_ptr<RootedFileSystem> file_system_;  // null without roots
};

}  // namespace odmoe
