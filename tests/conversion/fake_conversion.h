// A conversion that copies a file, and that a test can hold, watch and make fail.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "services/conversion/jobs/conversion_runner.h"

namespace odmoe {

// A job of one step.
JobSpec OneStep(const std::string& source, const std::string& destination);

// Works as converter/convert.h promises: a source that begins with "MODEL" is copied by way of
// DESTINATION.partial, in two phases, "read" and "write". Outlives the queues that use it.
// Thread-safe.
class FakeConversion {
 public:
  ConversionFunctions functions();

  // Runs stop halfway until Release, or until they are cancelled.
  void Hold();
  void Release();
  // Runs report progress this many times.
  void set_reports(int reports);
  // Runs end with this instead of an output.
  void set_outcome(absl::Status outcome);
  // Waits until this many runs have begun; false: not within ten seconds.
  bool WaitForRuns(int count);
  // Waits until a run has come to where Hold stops it, and so does nothing any more; as above.
  bool WaitUntilHeld();
  int runs();
  // Of the runs, those that found partial output to go on from.
  int resumed_runs();

 private:
  absl::StatusOr<ConvertPlan> Plan(const ConvertOptions& options);
  absl::Status Run(const ConvertPlan& plan, const Cancellation* cancellation,
                   const std::function<void(const ConvertProgress&)>& on_progress);
  bool WaitWhileHeld(const Cancellation& cancellation);

  absl::Mutex mutex_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int reports_ ABSL_GUARDED_BY(mutex_) = 4;
  int runs_ ABSL_GUARDED_BY(mutex_) = 0;
  int resumed_runs_ ABSL_GUARDED_BY(mutex_) = 0;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
