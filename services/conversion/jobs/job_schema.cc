#include "services/conversion/jobs/job_schema.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int64_t kApplicationId = 0x6f646d6a;  // "odmj", in the file's header
constexpr int64_t kSchemaVersion = 1;

// Numbers of job states are JobState's; 0 and 1 have not ended. A partial unique index lets one
// unended job at most have a destination, whatever two processes do at once. AUTOINCREMENT never
// hands out a number twice, which owners rely on.
constexpr char kCreateTables[] = R"sql(
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    source TEXT NOT NULL,
    destination TEXT NOT NULL,
    outtype TEXT NOT NULL,
    source_path TEXT NOT NULL,
    destination_path TEXT NOT NULL,
    state INTEGER NOT NULL,
    owner INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    step TEXT NOT NULL DEFAULT '',
    step_number INTEGER NOT NULL DEFAULT 0,
    step_count INTEGER NOT NULL DEFAULT 0,
    done_bytes INTEGER NOT NULL DEFAULT 0,
    total_bytes INTEGER NOT NULL DEFAULT 0,
    bytes_per_second REAL NOT NULL DEFAULT 0,
    eta_us INTEGER,
    item TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    error_code INTEGER NOT NULL DEFAULT 0
  );
  CREATE UNIQUE INDEX one_writer ON jobs(destination_path) WHERE state IN (0, 1);
  CREATE INDEX by_state ON jobs(state, sequence);
  CREATE TABLE owners (id INTEGER PRIMARY KEY AUTOINCREMENT);
)sql";

absl::StatusOr<int64_t> ReadInteger(SqliteDatabase& database, const char* sql) {
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database.Query(sql));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  return query.Integer(0);
}

absl::Time TimeFromColumn(const SqliteQuery& row, int column) {
  return row.IsNull(column) ? absl::InfinitePast() : absl::FromUnixMicros(row.Integer(column));
}

uint64_t NotNegative(int64_t value) { return value < 0 ? 0 : value; }

}  // namespace

absl::Status PrepareSchema(SqliteDatabase& database, const std::string& path) {
  // Under the write lock, so that two processes that create the file at once do so one by one.
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(database));
  ODMOE_ASSIGN_OR_RETURN(const int64_t application,
                         ReadInteger(database, "PRAGMA application_id"));
  ODMOE_ASSIGN_OR_RETURN(const int64_t version, ReadInteger(database, "PRAGMA user_version"));
  ODMOE_ASSIGN_OR_RETURN(const int64_t tables,
                         ReadInteger(database, "SELECT count(*) FROM sqlite_master"));
  if (application != kApplicationId && (tables != 0 || application != 0 || version != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is an SQLite database of another program (application id ",
                     application, ", expected ", kApplicationId, ")"));
  }
  if (application == kApplicationId && version != kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has schema version ", version, "; this odmoe knows version ",
                     kSchemaVersion, ", so a newer one wrote it"));
  }
  if (application == 0) {
    ODMOE_RETURN_IF_ERROR(database.Execute(kCreateTables));
    ODMOE_RETURN_IF_ERROR(
        database.Execute(absl::StrCat("PRAGMA application_id=", kApplicationId,
                                      "; PRAGMA user_version=", kSchemaVersion, ";")));
  }
  return transaction.Commit();
}

absl::StatusOr<Job> JobFromRow(const SqliteQuery& row) {
  Job job;
  int column = 0;
  job.id = row.Text(column++);
  job.spec = {row.Text(column), row.Text(column + 1), row.Text(column + 2)};
  column += 3;
  const int64_t state = row.Integer(column++);
  if (state < 0 || state > int64_t(JobState::kCancelled)) {
    return absl::DataLossError(absl::StrCat("job database: job ", job.id, " has state ", state));
  }
  job.state = JobState(state);
  job.progress.step = row.Text(column++);
  job.progress.step_number = int32_t(row.Integer(column++));
  job.progress.step_count = int32_t(row.Integer(column++));
  job.progress.done_bytes = NotNegative(row.Integer(column++));
  job.progress.total_bytes = NotNegative(row.Integer(column++));
  job.progress.bytes_per_second = row.Real(column++);
  if (!row.IsNull(column)) job.progress.eta = absl::Microseconds(row.Integer(column));
  ++column;
  job.progress.item = row.Text(column++);
  job.error = row.Text(column++);
  job.error_code = absl::StatusCode(row.Integer(column++));
  job.created = TimeFromColumn(row, column++);
  job.started = TimeFromColumn(row, column++);
  job.finished = TimeFromColumn(row, column++);
  job.version = row.Integer(column++);
  return job;
}

std::optional<int64_t> MicrosecondsOf(absl::Time time) {
  if (time == absl::InfinitePast() || time == absl::InfiniteFuture()) return std::nullopt;
  return absl::ToUnixMicros(time);
}

}  // namespace odmoe
