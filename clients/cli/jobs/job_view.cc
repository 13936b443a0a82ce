#include "clients/cli/jobs/job_view.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "clients/cli/jobs/quantize_summary.h"
#include "services/conversion/jobs/job_spec_json.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

Json TimeToJson(absl::Time time) {
  if (time == absl::InfinitePast()) return nullptr;
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

Json ProgressToJson(const JobProgress& progress) {
  Json json;
  json["phase"] = progress.phase;
  json["phase_number"] = progress.phase_number;
  json["phase_count"] = progress.phase_count;
  json["done_bytes"] = progress.done_bytes;
  json["total_bytes"] = progress.total_bytes;
  json["bytes_per_second"] = progress.bytes_per_second;
  json["eta_seconds"] =
      progress.eta.has_value() ? Json(absl::ToDoubleSeconds(*progress.eta)) : Json(nullptr);
  json["item"] = progress.item;
  return json;
}

Json StepToJson(const StepSpec& spec, const JobStep& step) {
  // The step as a job file has it, then how it went.
  Json json = Json::object();
  if (const auto text = StepSpecToJson(spec); text.ok()) json = Json::parse(*text, nullptr, false);
  json["state"] = StepStateName(step.state);
  json["progress"] = ProgressToJson(step.progress);
  json["started"] = TimeToJson(step.started);
  json["finished"] = TimeToJson(step.finished);
  json["result"] = nullptr;
  if (step.state == StepState::kDone) {
    json["result"] = {{"bytes", step.result.bytes},
                      {"digest", step.result.digest},
                      {"metrics", step.result.metrics}};
  }
  return json;
}

// The step at hand: the one that runs or waits first, or failed, or the last.
size_t StepAtHand(const Job& job) {
  for (size_t i = 0; i < job.steps.size(); ++i) {
    if (job.steps[i].state != StepState::kDone) return i;
  }
  return job.steps.empty() ? 0 : job.steps.size() - 1;
}

std::string Metrics(const StepResult& result) {
  std::string text;
  for (const auto& [name, value] : result.metrics) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", name, " ", absl::StrFormat("%.6g", value));
  }
  return text;
}

std::string StepLine(const Job& job, size_t i) {
  const StepSpec& spec = job.spec.steps[i];
  const JobStep& step = job.steps[i];
  std::string line = absl::StrFormat("  %d. %-8s %-8s %s", i + 1, KindOf(spec),
                                     StepStateName(step.state), SourcesOf(spec).front());
  if (!DestinationOf(spec).empty()) absl::StrAppend(&line, " -> ", DestinationOf(spec));
  if (step.state == StepState::kDone) {
    if (step.result.bytes > 0) absl::StrAppend(&line, ", ", FormatBytes(step.result.bytes));
    if (const auto* quantize = std::get_if<QuantizeSpec>(&spec)) {
      const std::string table = QuantizeSummary(*quantize, step.result);
      absl::StrAppend(&line, "\n", absl::StripSuffix(table, "\n"));
    } else if (!step.result.metrics.empty()) {
      absl::StrAppend(&line, ", ", Metrics(step.result));
    }
  } else if (step.progress.total_bytes > 0) {
    absl::StrAppend(&line, ", ", FormatBytes(step.progress.done_bytes), " of ",
                    FormatBytes(step.progress.total_bytes));
  }
  return line;
}

// A job of one step shows its phases as steps; one of several shows the phase beside the step.
std::optional<ProgressState> ToProgressState(const Job& job) {
  const size_t at = StepAtHand(job);
  if (at >= job.steps.size() || job.steps[at].progress.phase_number == 0) return std::nullopt;
  const JobProgress& progress = job.steps[at].progress;
  ProgressState state;
  state.step = progress.phase;
  state.step_number = progress.phase_number;
  state.step_count = progress.phase_count;
  if (job.steps.size() > 1) {
    state.step = KindOf(job.spec.steps[at]);
    if (progress.phase != state.step) absl::StrAppend(&state.step, ": ", progress.phase);
    state.step_number = int(at) + 1;
    state.step_count = int(job.steps.size());
  }
  state.done_bytes = progress.done_bytes;
  state.total_bytes = progress.total_bytes;
  state.item = progress.item;
  state.bytes_per_second = progress.bytes_per_second;
  state.eta = progress.eta;
  return state;
}

}  // namespace

std::string JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued: return "queued";
    case JobState::kRunning: return "running";
    case JobState::kSucceeded: return "succeeded";
    case JobState::kFailed: return "failed";
    case JobState::kCancelled: return "cancelled";
    case JobState::kPaused: return "paused";
  }
  return "";
}

std::string StepStateName(StepState state) {
  switch (state) {
    case StepState::kQueued: return "queued";
    case StepState::kRunning: return "running";
    case StepState::kDone: return "done";
    case StepState::kFailed: return "failed";
    case StepState::kSkipped: return "skipped";
  }
  return "";
}

std::string JobTarget(const Job& job) {
  for (auto step = job.spec.steps.rbegin(); step != job.spec.steps.rend(); ++step) {
    if (!DestinationOf(*step).empty()) return DestinationOf(*step);
  }
  return job.spec.steps.empty() ? "" : SourcesOf(job.spec.steps.front()).front();
}

Json JobToJson(const Job& job) {
  Json json;
  json["id"] = job.id;
  json["state"] = JobStateName(job.state);
  json["priority"] = job.spec.priority;
  json["source"] = job.spec.steps.empty() ? "" : SourcesOf(job.spec.steps.front()).front();
  json["destination"] = JobTarget(job);
  json["progress"] =
      job.steps.empty() ? Json(nullptr) : ProgressToJson(job.steps[StepAtHand(job)].progress);
  json["steps"] = Json::array();
  for (size_t i = 0; i < job.steps.size(); ++i) {
    json["steps"].push_back(StepToJson(job.spec.steps[i], job.steps[i]));
  }
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

std::string DescribeJob(const Job& job) {
  std::string text = absl::StrCat(job.id, " ", JobStateName(job.state));
  if (job.spec.priority != 0) absl::StrAppend(&text, ", priority ", job.spec.priority);
  absl::StrAppend(&text, ", created ",
                  absl::FormatTime("%Y-%m-%d %H:%M:%S", job.created, absl::LocalTimeZone()));
  if (job.ended() && job.started != absl::InfinitePast()) {
    absl::StrAppend(&text, ", took ", ShortDuration(job.finished - job.started));
  }
  for (size_t i = 0; i < job.steps.size(); ++i) absl::StrAppend(&text, "\n", StepLine(job, i));
  if (!job.error.empty()) absl::StrAppend(&text, "\n  ", job.error);
  return text;
}

std::string BriefProgress(const Job& job) {
  const std::optional<ProgressState> state = ToProgressState(job);
  if (!state.has_value()) return "";
  const double share =
      state->total_bytes == 0 ? 0.0 : double(state->done_bytes) / double(state->total_bytes);
  return absl::StrFormat("%d/%d %s %.0f%%", state->step_number, state->step_count, state->step,
                         100.0 * share);
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
    case JobState::kPaused:
      break;
  }
  return absl::UnavailableError(absl::StrCat("job ", job.id, " is still ",
                                             JobStateName(job.state), "; watch it again with: "
                                             "odmoe jobs watch ", job.id));
}

absl::StatusOr<Job> ShowJob(JobQueue& queue, const std::string& id, Console& console, bool quiet,
                            const Cancellation& cancellation,
                            const std::function<void(const Job&)>& on_change) {
  ProgressDisplay display(console, quiet || on_change);
  const auto say = [&](const std::string& line) {
    display.Finish();
    if (!quiet) console.ErrLine(line);
  };
  WatchOptions options;
  options.cancellation = &cancellation;
  options.on_interrupted = [&](const absl::Status& status) {
    say(absl::StrCat("reconnecting: ", status.message()));
  };
  bool paused = false;
  ODMOE_ASSIGN_OR_RETURN(Job job, queue.Watch(id, options, [&](const Job& now) {
    if (on_change) {
      on_change(now);
      return true;
    }
    const bool was_paused = std::exchange(paused, now.state == JobState::kPaused);
    if (paused && !was_paused) {
      say(absl::StrCat("paused; go on with: odmoe jobs resume ", id));
    }
    if (paused) return true;
    if (const auto state = ToProgressState(now); state.has_value()) display.Update(*state);
    return true;
  }));
  display.Finish();
  if (!job.ended() && cancellation.cancelled()) return absl::CancelledError("interrupted");
  return job;
}

absl::StatusOr<Job> RunJob(JobQueue& queue, const JobSpec& spec, Console& console, bool quiet,
                           const Cancellation& cancellation) {
  ODMOE_ASSIGN_OR_RETURN(const Job submitted, queue.Submit(spec, ""));
  if (!quiet) console.ErrLine(absl::StrCat("job ", submitted.id));
  absl::StatusOr<Job> job = ShowJob(queue, submitted.id, console, quiet, cancellation);
  if (cancellation.cancelled()) {
    const absl::Status cancelled = queue.Cancel(submitted.id).status();
    // It may have ended meanwhile, and that is no failure to cancel.
    if (!cancelled.ok() && !absl::IsFailedPrecondition(cancelled)) return cancelled;
    return absl::CancelledError(absl::StrCat("interrupted; job ", submitted.id, " is cancelled"));
  }
  ODMOE_RETURN_IF_ERROR(job.status());
  ODMOE_RETURN_IF_ERROR(JobOutcome(*job));
  return job;
}

}  // namespace odmoe
