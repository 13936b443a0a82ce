// The job database's layout on disk, and how a row becomes a Job.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Creates the tables in an empty database, brings an older layout up to date, and refuses what is
// not a job database or is newer than this program.
absl::Status PrepareSchema(SqliteDatabase& database, const std::string& path);

// The columns JobFromRow reads, in order, for a SELECT.
inline constexpr char kJobColumns[] =
    "id, source, destination, outtype, state, step, step_number, step_count, done_bytes, "
    "total_bytes, bytes_per_second, eta_us, item, error, error_code, created_us, started_us, "
    "finished_us, version";
inline constexpr int kJobColumnCount = 19;

// The job in the query's current row, its columns as kJobColumns. DATA_LOSS: a value that no odmoe
// writes.
absl::StatusOr<Job> JobFromRow(const SqliteQuery& row);

// Moments as the database keeps them: microseconds since 1970, NULL where there is none.
std::optional<int64_t> MicrosecondsOf(absl::Time time);

}  // namespace odmoe
