// Jobs as people and programs see them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/console/console.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/json_output.h"
#include "services/core/base/cancellation.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// "queued", "running", "succeeded", "failed", "cancelled".
std::string JobStateName(JobState state);

// Times as RFC 3339 in UTC, null where it has not happened.
Json JobToJson(const Job& job);

ProgressState ToProgressState(const JobProgress& progress);

// OK for a job that succeeded; else its own error, or ABORTED for one that somebody cancelled.
absl::Status JobOutcome(const Job& job);

// Shows a job's progress until it ends, and returns its last state. CANCELLED: asked to stop
// watching; the job goes on.
absl::StatusOr<Job> ShowJob(JobQueue& queue, const std::string& id, Console& console, bool quiet,
                            const Cancellation& cancellation);

}  // namespace odmoe
