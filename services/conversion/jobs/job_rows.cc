#include "services/conversion/jobs/job_rows.h"

#include <cmath>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/job_spec_json.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

absl::Time TimeFromColumn(const SqliteQuery& row, int column) {
  return row.IsNull(column) ? absl::InfinitePast() : absl::FromUnixMicros(row.Integer(column));
}

uint64_t NotNegative(int64_t value) { return value < 0 ? 0 : uint64_t(value); }

absl::Status Damaged(const std::string& id, const std::string& what) {
  return absl::DataLossError(absl::StrCat("job database: job ", id, " has ", what));
}

template <typename Enum>
absl::Status ReadEnum(int64_t value, Enum last, const std::string& id, const char* what,
                      Enum& out) {
  if (value < 0 || value > int64_t(last)) {
    return Damaged(id, absl::StrCat(what, " ", value));
  }
  out = Enum(value);
  return absl::OkStatus();
}

JobProgress ReadProgress(const SqliteQuery& row, int column) {
  JobProgress progress;
  progress.phase = row.Text(column++);
  progress.phase_number = int32_t(row.Integer(column++));
  progress.phase_count = int32_t(row.Integer(column++));
  progress.done_bytes = NotNegative(row.Integer(column++));
  progress.total_bytes = NotNegative(row.Integer(column++));
  progress.bytes_per_second = row.Real(column++);
  if (!row.IsNull(column)) progress.eta = absl::Microseconds(row.Integer(column));
  ++column;
  progress.item = row.Text(column++);
  return progress;
}

absl::StatusOr<std::map<std::string, double>> ReadMetrics(const std::string& text) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "metrics"));
  std::map<std::string, double> metrics;
  if (!json.is_object()) return absl::InvalidArgumentError("not an object");
  for (const auto& [name, value] : json.items()) {
    if (!value.is_number()) return absl::InvalidArgumentError("not a number");
    metrics[name] = value.get<double>();
  }
  return metrics;
}

absl::Status ReadStep(const SqliteQuery& row, StoredJob& job) {
  const std::string& id = job.job.id;
  absl::StatusOr<StepSpec> spec = StepSpecFromJson(row.Text(0), "spec");
  if (!spec.ok()) return Damaged(id, absl::StrCat("a bad step: ", spec.status().message()));
  job.job.spec.steps.push_back(*std::move(spec));
  JobStep& step = job.job.steps.emplace_back();
  ODMOE_RETURN_IF_ERROR(
      ReadEnum(row.Integer(1), StepState::kSkipped, id, "step state", step.state));
  step.progress = ReadProgress(row, 2);
  step.started = TimeFromColumn(row, 10);
  step.finished = TimeFromColumn(row, 11);
  step.result.bytes = NotNegative(row.Integer(12));
  step.result.digest = row.Text(13);
  absl::StatusOr<std::map<std::string, double>> metrics = ReadMetrics(row.Text(14));
  if (!metrics.ok()) return Damaged(id, "bad metrics");
  step.result.metrics = *std::move(metrics);
  return absl::OkStatus();
}

}  // namespace

std::string SelectJobs(absl::string_view rest) {
  return absl::StrCat("SELECT ", kJobColumns, " FROM jobs ", rest);
}

absl::StatusOr<StoredJob> ReadJob(const SqliteQuery& row) {
  StoredJob stored;
  Job& job = stored.job;
  stored.sequence = row.Integer(0);
  job.id = row.Text(1);
  job.spec.priority = int32_t(row.Integer(2));
  ODMOE_RETURN_IF_ERROR(ReadEnum(row.Integer(3), JobState::kPaused, job.id, "state", job.state));
  ODMOE_RETURN_IF_ERROR(ReadEnum(row.Integer(4), JobWish::kPause, job.id, "wish", stored.wish));
  stored.partial = row.Integer(5) != 0;
  stored.deaths = row.Integer(6);
  job.error = row.Text(7);
  job.error_code = absl::StatusCode(row.Integer(8));
  job.created = TimeFromColumn(row, 9);
  job.started = TimeFromColumn(row, 10);
  job.finished = TimeFromColumn(row, 11);
  job.version = row.Integer(12);
  return stored;
}

absl::Status ReadSteps(SqliteDatabase& database, StoredJob& job) {
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database.Query("SELECT spec, state, phase, phase_number, phase_count, done_bytes, "
                     "total_bytes, bytes_per_second, eta_us, item, started_us, finished_us, "
                     "result_bytes, digest, metrics FROM steps WHERE job = ?1 ORDER BY number",
                     job.sequence));
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) break;
    ODMOE_RETURN_IF_ERROR(ReadStep(query, job));
  }
  return job.job.steps.empty() ? Damaged(job.job.id, "no steps") : absl::OkStatus();
}

absl::Status InsertStep(SqliteDatabase& database, int64_t job, int64_t number,
                        const StepSpec& step) {
  ODMOE_ASSIGN_OR_RETURN(const std::string spec, StepSpecToJson(step));
  return database
      .Run("INSERT INTO steps (job, number, spec) VALUES (?1, ?2, ?3)", job, number,
           absl::string_view(spec))
      .status();
}

absl::Status WriteProgress(SqliteDatabase& database, int64_t job, int64_t number,
                           const JobProgress& progress) {
  std::optional<int64_t> eta;
  if (progress.eta) eta = absl::ToInt64Microseconds(*progress.eta);
  return database
      .Run("UPDATE steps SET phase = ?3, phase_number = ?4, phase_count = ?5, done_bytes = ?6, "
           "total_bytes = ?7, bytes_per_second = ?8, eta_us = ?9, item = ?10 "
           "WHERE job = ?1 AND number = ?2",
           job, number, absl::string_view(progress.phase), int64_t{progress.phase_number},
           int64_t{progress.phase_count}, int64_t(progress.done_bytes),
           int64_t(progress.total_bytes), progress.bytes_per_second, eta,
           absl::string_view(progress.item))
      .status();
}

absl::Status WriteResult(SqliteDatabase& database, int64_t job, int64_t number,
                         const StepResult& result) {
  nlohmann::json metrics = nlohmann::json::object();
  for (const auto& [name, value] : result.metrics) {
    if (std::isfinite(value)) metrics[name] = value;  // JSON has no other numbers
  }
  const std::string text =
      metrics.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return database
      .Run("UPDATE steps SET state = ?3, result_bytes = ?4, digest = ?5, metrics = ?6, "
           "finished_us = ?7, eta_us = NULL, item = '' WHERE job = ?1 AND number = ?2",
           job, number, int64_t(StepState::kDone), int64_t(result.bytes),
           absl::string_view(result.digest), absl::string_view(text),
           NowMicros())
      .status();
}

int64_t NowMicros() { return absl::ToUnixMicros(absl::Now()); }

absl::Status WrongState(const Job& job, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("job ", job.id, " ", why));
}

}  // namespace odmoe
