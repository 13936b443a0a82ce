// How rows of the job database become jobs.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
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

// "SELECT kJobColumns FROM jobs " and `rest`.
std::string SelectJobs(absl::string_view rest);

static_assert(int(JobState::kQueued) == 0 && int(JobState::kRunning) == 1 &&
                  int(JobState::kSucceeded) == 2 && int(JobState::kFailed) == 3 &&
                  int(JobState::kCancelled) == 4 && int(JobState::kPaused) == 5,
              "SQL on these tables names the numbers");
static_assert(int(StepState::kQueued) == 0 && int(StepState::kRunning) == 1 &&
                  int(StepState::kDone) == 2,
              "SQL on these tables names the numbers");

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

// Now, as the database keeps moments: microseconds since 1970.
int64_t NowMicros();

// FAILED_PRECONDITION: the job `why`, as in "has ended already".
absl::Status WrongState(const Job& job, absl::string_view why);

}  // namespace odmoe
