// How rows of the job database become jobs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// What was asked of a running job, or of one whose partial output is still to be removed.
enum class JobWish { kNone, kCancel, kPause };

// A job as its rows have it.
struct StoredJob {
  Job job;
  int64_t sequence = 0;
  JobWish wish = JobWish::kNone;
  bool partial = false;  // it has run, so that partial output may be there
  int64_t deaths = 0;
};

// The columns ReadJob reads, in order, for a SELECT or RETURNING.
inline constexpr char kJobColumns[] =
    "sequence, id, priority, state, wish, partial, deaths, error, error_code, created_us, "
    "started_us, finished_us, version";

// The job in the query's current row, its columns as kJobColumns, without its steps. DATA_LOSS: a
// value that no odmoe writes.
absl::StatusOr<StoredJob> ReadJob(const SqliteQuery& row);
// Reads the job's steps into `job`, which has none. DATA_LOSS as above.
absl::Status ReadSteps(SqliteDatabase& database, StoredJob& job);

absl::Status InsertStep(SqliteDatabase& database, int64_t job, int64_t number,
                        const StepSpec& step);
absl::Status WriteProgress(SqliteDatabase& database, int64_t job, int64_t number,
                           const JobProgress& progress);
absl::Status WriteResult(SqliteDatabase& database, int64_t job, int64_t number,
                         const StepResult& result);

// Moments as the database keeps them: microseconds since 1970, NULL where there is none.
std::optional<int64_t> MicrosecondsOf(absl::Time time);

}  // namespace odmoe
