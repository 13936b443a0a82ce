#include "clients/cli/jobs/job_view.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

Json TimeToJson(absl::Time time) {
  if (time == absl::InfinitePast()) return nullptr;
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

Json ProgressToJson(const JobProgress& progress) {
  Json json;
  json["step"] = progress.step;
  json["step_number"] = progress.step_number;
  json["step_count"] = progress.step_count;
  json["done_bytes"] = progress.done_bytes;
  json["total_bytes"] = progress.total_bytes;
  json["bytes_per_second"] = progress.bytes_per_second;
  json["eta_seconds"] =
      progress.eta.has_value() ? Json(absl::ToDoubleSeconds(*progress.eta)) : Json(nullptr);
  json["item"] = progress.item;
  return json;
}

}  // namespace

std::string JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

Json JobToJson(const Job& job) {
  Json json;
  json["id"] = job.id;
  json["state"] = JobStateName(job.state);
  json["source"] = job.spec.source;
  json["destination"] = job.spec.destination;
  json["outtype"] = job.spec.outtype;
  json["progress"] = ProgressToJson(job.progress);
  json["error"] = nullptr;
  if (job.state == JobState::kFailed) {
    json["error"] = {{"code", absl::StatusCodeToString(job.error_code)}, {"message", job.error}};
  }
  json["created"] = TimeToJson(job.created);
  json["started"] = TimeToJson(job.started);
  json["finished"] = TimeToJson(job.finished);
  json["version"] = job.version;
  return json;
}

ProgressState ToProgressState(const JobProgress& progress) {
  ProgressState state;
  state.step = progress.step;
  state.step_number = progress.step_number;
  state.step_count = progress.step_count;
  state.done_bytes = progress.done_bytes;
  state.total_bytes = progress.total_bytes;
  state.item = progress.item;
  state.bytes_per_second = progress.bytes_per_second;
  state.eta = progress.eta;
  return state;
}

absl::Status JobOutcome(const Job& job) {
  switch (job.state) {
    case JobState::kSucceeded:
      return absl::OkStatus();
    case JobState::kFailed:
      return absl::Status(
          job.error_code == absl::StatusCode::kOk ? absl::StatusCode::kUnknown : job.error_code,
          absl::StrCat("job ", job.id, " failed: ", job.error));
    case JobState::kCancelled:
      return absl::AbortedError(absl::StrCat("job ", job.id, " was cancelled"));
    case JobState::kQueued:
    case JobState::kRunning:
      break;
  }
  return absl::UnavailableError(absl::StrCat("job ", job.id, " is still ",
                                             JobStateName(job.state), "; watch it again with: "
                                             "odmoe jobs watch ", job.id));
}

absl::StatusOr<Job> ShowJob(JobQueue& queue, const std::string& id, Console& console, bool quiet,
                            const Cancellation& cancellation) {
  ProgressDisplay display(console, quiet);
  ODMOE_ASSIGN_OR_RETURN(Job job, queue.Watch(id, -1, &cancellation, [&](const Job& now) {
    if (now.progress.step_number > 0) display.Update(ToProgressState(now.progress));
    return true;
  }));
  display.Finish();
  if (!job.ended() && cancellation.cancelled()) return absl::CancelledError("interrupted");
  return job;
}

}  // namespace odmoe
