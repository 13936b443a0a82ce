// Jobs run by threads of this process, kept in an SQLite file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/conversion/jobs/conversion_runner.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

struct LocalJobQueueOptions {
  std::string database_path;       // created where it does not exist; its folder does
  std::vector<std::string> roots;  // existing folders; empty: any path, as in a user's own process
  int workers = 1;                 // jobs at once, at most 64; 0: submit and look, run nothing
  // How often a running job's progress is written down, and so seen by watchers, at most.
  absl::Duration progress_interval = absl::Milliseconds(250);
  JobRetention retention;
  // How a model is opened to be evaluated; empty: evaluate steps are refused. For
  // OpenLocalJobQueue(options) alone.
  OpenModelFunction open_model = nullptr;
};

// A queue of this process, which knows what only the database says.
class HostedJobQueue : public JobQueue {
 public:
  // Whether a job that has not ended reads or writes the folder `directory` or what is below it,
  // links followed in both.
  virtual absl::StatusOr<bool> UsesBelow(const std::string& directory) = 0;
};

// A queue whose jobs outlive it: destroyed, it stops its running jobs and puts them back to be run
// again; a job whose process died is run again by the next queue to open the database, or by one
// that has it open. Any of the queues on a database runs a waiting job, so they should have the
// same roots. Calls must have returned before it is destroyed. INVALID_ARGUMENT, NOT_FOUND: a root
// or the number of workers; and see JobStore::Open.
absl::StatusOr<std::unique_ptr<HostedJobQueue>> OpenLocalJobQueue(
    const LocalJobQueueOptions& options);

// The same with other functions to do the work.
absl::StatusOr<std::unique_ptr<HostedJobQueue>> OpenLocalJobQueue(
    const LocalJobQueueOptions& options, ConversionFunctions functions);

}  // namespace odmoe
