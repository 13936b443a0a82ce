// Jobs as people and programs see them.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/commands/command.h"
#include "clients/cli/console/console.h"
#include "clients/cli/console/progress.h"
#include "clients/cli/json_output.h"
#include "services/core/base/cancellation.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// "queued", "running", "paused", "succeeded", "failed", "cancelled".
std::string JobStateName(JobState state);
// "queued", "running", "done", "failed", "skipped".
std::string StepStateName(StepState state);

// Times as RFC 3339 in UTC, null where it has not happened. Beside all steps: the first one's
// source, the last destination, and the progress of the step at hand.
Json JobToJson(const Job& job);

// Several lines: the job, then each of its steps with its result.
std::string DescribeJob(const Job& job);
// One line on how far it is: "2/3 convert 41%".
std::string BriefProgress(const Job& job);
// What it makes last, or else the model it evaluates.
std::string JobTarget(const Job& job);

// OK for a job that succeeded; else its own error, or ABORTED for one that somebody cancelled.
absl::Status JobOutcome(const Job& job);

// Shows a job's progress until it ends, and returns its last state; says so while the connection is
// away. `on_change`, where not empty, sees each state instead, and nothing is shown. CANCELLED:
// asked to stop watching; the job goes on.
absl::StatusOr<Job> ShowJob(JobQueue& queue, const std::string& id, Console& console, bool quiet,
                            const Cancellation& cancellation,
                            const std::function<void(const Job&)>& on_change = nullptr);

// Submits a job and shows it to its end; returns it where it succeeded, else its error. CANCELLED:
// asked to stop, and the job is cancelled too.
absl::StatusOr<Job> RunJob(JobQueue& queue, const JobSpec& spec, Console& console, bool quiet,
                           const Cancellation& cancellation);

}  // namespace odmoe
