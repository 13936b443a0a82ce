#include "services/conversion/jobs/job_schema.h"

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int64_t kApplicationId = 0x6f646d6a;  // "odmj", in the file's header
constexpr int64_t kSchemaVersion = 2;

// Numbers of states are those of JobState and StepState, of wishes those of JobWish. AUTOINCREMENT
// never hands out a number twice, which owners rely on. `paths` has each path a step reads or
// writes, as resolved at submit. A step's `spec` is StepSpecToJson's.
constexpr char kCreateTables[] = R"sql(
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    priority INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL,
    wish INTEGER NOT NULL DEFAULT 0,
    partial INTEGER NOT NULL DEFAULT 0,
    owner INTEGER,
    deaths INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    error TEXT NOT NULL DEFAULT '',
    error_code INTEGER NOT NULL DEFAULT 0
  );
  CREATE INDEX by_turn ON jobs(state, priority DESC, sequence);
  CREATE TABLE steps (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    spec TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    phase TEXT NOT NULL DEFAULT '',
    phase_number INTEGER NOT NULL DEFAULT 0,
    phase_count INTEGER NOT NULL DEFAULT 0,
    done_bytes INTEGER NOT NULL DEFAULT 0,
    total_bytes INTEGER NOT NULL DEFAULT 0,
    bytes_per_second REAL NOT NULL DEFAULT 0,
    eta_us INTEGER,
    item TEXT NOT NULL DEFAULT '',
    started_us INTEGER,
    finished_us INTEGER,
    result_bytes INTEGER NOT NULL DEFAULT 0,
    digest TEXT NOT NULL DEFAULT '',
    metrics TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (job, number)
  ) WITHOUT ROWID;
  CREATE TABLE paths (
    job INTEGER NOT NULL,
    step INTEGER NOT NULL,
    position INTEGER NOT NULL,
    path TEXT NOT NULL,
    written INTEGER NOT NULL,
    PRIMARY KEY (job, step, position)
  ) WITHOUT ROWID;
  CREATE TRIGGER forget AFTER DELETE ON jobs BEGIN
    DELETE FROM steps WHERE job = OLD.sequence;
    DELETE FROM paths WHERE job = OLD.sequence;
  END;
)sql";

constexpr char kCreateOwners[] = "CREATE TABLE owners (id INTEGER PRIMARY KEY AUTOINCREMENT);";

// Version 1 had one step a job, in the job's row. A job that was stopped amid its work has deaths
// or a start, so partial output may be there.
constexpr char kFromVersion1[] = R"sql(
  INSERT INTO jobs (sequence, id, request_id, state, wish, partial, owner, deaths, version,
                    created_us, started_us, finished_us, error, error_code)
    SELECT sequence, id, request_id, state, cancel_requested,
           state < 2 AND started_us IS NOT NULL, owner, deaths, version,
           created_us, started_us, finished_us, error, error_code FROM jobs_1;
  INSERT INTO steps (job, number, spec, state, phase, phase_number, phase_count, done_bytes,
                     total_bytes, bytes_per_second, eta_us, item, started_us, finished_us)
    SELECT sequence, 0,
           json_object('convert', json_object('source', source, 'destination', destination,
                                              'outtype', outtype)),
           CASE state WHEN 0 THEN 0 WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 3 THEN 3 ELSE 4 END,
           step, step_number, step_count, done_bytes, total_bytes, bytes_per_second, eta_us, item,
           started_us, finished_us FROM jobs_1;
  INSERT INTO paths SELECT sequence, 0, 0, source_path, 0 FROM jobs_1;
  INSERT INTO paths SELECT sequence, 0, 1, destination_path, 1 FROM jobs_1;
  DROP TABLE jobs_1;
)sql";

absl::StatusOr<int64_t> ReadInteger(SqliteDatabase& database, const char* sql) {
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database.Query(sql));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  return query.Integer(0);
}

absl::Status MigrateFromVersion1(SqliteDatabase& database) {
  ODMOE_RETURN_IF_ERROR(
      database.Execute("DROP INDEX one_writer; DROP INDEX by_state; "
                       "ALTER TABLE jobs RENAME TO jobs_1;"));
  ODMOE_RETURN_IF_ERROR(database.Execute(kCreateTables));
  return database.Execute(kFromVersion1);
}

absl::Status SetVersion(SqliteDatabase& database) {
  return database.Execute(absl::StrCat("PRAGMA application_id=", kApplicationId,
                                       "; PRAGMA user_version=", kSchemaVersion, ";"));
}

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
  if (application == 0) {
    ODMOE_RETURN_IF_ERROR(database.Execute(kCreateTables));
    ODMOE_RETURN_IF_ERROR(database.Execute(kCreateOwners));
    ODMOE_RETURN_IF_ERROR(SetVersion(database));
  } else if (version == 1) {
    ODMOE_RETURN_IF_ERROR(MigrateFromVersion1(database));
    ODMOE_RETURN_IF_ERROR(SetVersion(database));
  } else if (version != kSchemaVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has schema version ", version, "; this odmoe knows version ",
                     kSchemaVersion, ", so a newer one wrote it"));
  }
  return transaction.Commit();
}

}  // namespace odmoe
