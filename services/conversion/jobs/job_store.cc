#include "services/conversion/jobs/job_store.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/job_schema.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Short enough to type; 64 random bits, and UNIQUE in the table.
std::string NewJobId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

// A new owner number, locked before anyone can see a job with it.
absl::StatusOr<std::unique_ptr<OwnerLock>> RegisterOwner(SqliteDatabase& database,
                                                         const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(database));
  int64_t number = 0;
  {
    ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                           database.Query("INSERT INTO owners DEFAULT VALUES RETURNING id"));
    ODMOE_ASSIGN_OR_RETURN(const bool inserted, query.Step());
    if (!inserted) return absl::InternalError("job database: INSERT RETURNING gave no row");
    number = query.Integer(0);
    ODMOE_RETURN_IF_ERROR(query.Step().status());
  }
  ODMOE_RETURN_IF_ERROR(database.Run("DELETE FROM owners WHERE id < ?1", number).status());
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<OwnerLock> lock,
                         OwnerLock::Acquire(absl::StrCat(path, "-owners"), number));
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return lock;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> database, SqliteDatabase::Open(path));
  ODMOE_RETURN_IF_ERROR(PrepareSchema(*database, path));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<OwnerLock> owner, RegisterOwner(*database, path));
  std::unique_ptr<JobStore> store(new JobStore(std::move(database), std::move(owner)));
  ODMOE_RETURN_IF_ERROR(store->RequeueOrphans().status());
  return store;
}

absl::StatusOr<Job> JobStore::Insert(const NewJob& job) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  if (!job.request_id.empty()) {
    ODMOE_ASSIGN_OR_RETURN(std::optional<Job> known, FindByRequestLocked(job.request_id));
    if (known) return *std::move(known);
  }
  for (const auto& step : job.paths) {
    for (const PathUse& use : step) {
      ODMOE_RETURN_IF_ERROR(CheckPathLocked(-1, use));
    }
  }
  ODMOE_RETURN_IF_ERROR(CheckRoomLocked());
  const std::string id = NewJobId();
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("INSERT INTO jobs (id, request_id, priority, state, created_us) "
                "VALUES (?1, nullif(?2, ''), ?3, 0, ?4)",
                absl::string_view(id), absl::string_view(job.request_id),
                int64_t{job.given.priority}, NowMicros())
          .status());
  const int64_t sequence = database_->last_inserted_row();
  for (size_t step = 0; step < job.given.steps.size(); ++step) {
    ODMOE_RETURN_IF_ERROR(
        InsertStep(*database_, sequence, int64_t(step), job.given.steps[step]));
    for (size_t i = 0; i < job.paths[step].size(); ++i) {
      const PathUse& use = job.paths[step][i];
      ODMOE_RETURN_IF_ERROR(database_
                                ->Run("INSERT INTO paths VALUES (?1, ?2, ?3, ?4, ?5)", sequence,
                                      int64_t(step), int64_t(i), absl::string_view(use.resolved),
                                      int64_t{use.written})
                                .status());
    }
  }
  ODMOE_ASSIGN_OR_RETURN(StoredJob inserted, GetLocked(id));
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return std::move(inserted.job);
}

// A model directory is many files, so a path within a written one is a conflict too; but to write
// into a folder that another job only reads is none: outputs often go beside their source.
absl::Status JobStore::CheckPathLocked(int64_t self, const PathUse& use) {
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database_->Query(
          "SELECT id FROM jobs JOIN paths ON job = sequence "
          "WHERE state IN (0, 1, 5) AND sequence <> ?3 AND (written OR ?2) AND ("
          "  path = ?1"
          "  OR (written AND substr(?1, 1, length(path) + 1) = path || '/')"
          "  OR (?2 AND substr(path, 1, length(?1) + 1) = ?1 || '/')) LIMIT 1",
          absl::string_view(use.resolved), int64_t{use.written}, self));
  ODMOE_ASSIGN_OR_RETURN(const bool taken, query.Step());
  if (!taken) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("job ", query.Text(0), ", which has not ended, uses ", use.given));
}

absl::Status JobStore::CheckRoomLocked() {
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query("SELECT count(*) FROM jobs WHERE state = 0"));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  if (query.Integer(0) >= kMaxWaiting) {
    return absl::ResourceExhaustedError(absl::StrCat(kMaxWaiting, " jobs wait already"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredJob>> JobStore::SelectLocked(SqliteQuery query) {
  std::vector<StoredJob> jobs;
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) break;
    ODMOE_ASSIGN_OR_RETURN(StoredJob job, ReadJob(query));
    jobs.push_back(std::move(job));
  }
  for (StoredJob& job : jobs) ODMOE_RETURN_IF_ERROR(ReadSteps(*database_, job));
  return jobs;
}

absl::StatusOr<std::optional<Job>> JobStore::FindByRequest(absl::string_view request_id) {
  absl::MutexLock lock(&mutex_);
  return FindByRequestLocked(request_id);
}

absl::StatusOr<std::optional<Job>> JobStore::FindByRequestLocked(absl::string_view request_id) {
  static const std::string sql = SelectJobs("WHERE request_id = ?1");
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), request_id));
  ODMOE_ASSIGN_OR_RETURN(std::vector<StoredJob> found, SelectLocked(std::move(query)));
  if (found.empty()) return std::nullopt;
  return std::move(found.front().job);
}

absl::StatusOr<Job> JobStore::Get(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(StoredJob stored, GetLocked(id));
  return std::move(stored.job);
}

absl::StatusOr<StoredJob> JobStore::GetLocked(absl::string_view id) {
  static const std::string sql = SelectJobs("WHERE id = ?1");
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), id));
  ODMOE_ASSIGN_OR_RETURN(std::vector<StoredJob> found, SelectLocked(std::move(query)));
  if (found.empty()) return absl::NotFoundError("no such job");
  return std::move(found.front());
}

absl::StatusOr<std::vector<Job>> JobStore::List(int limit) {
  static const std::string sql = SelectJobs("ORDER BY sequence DESC LIMIT ?1");
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), int64_t{limit}));
  ODMOE_ASSIGN_OR_RETURN(std::vector<StoredJob> found, SelectLocked(std::move(query)));
  std::vector<Job> jobs;
  for (StoredJob& stored : found) jobs.push_back(std::move(stored.job));
  return jobs;
}

absl::StatusOr<std::vector<std::vector<PathUse>>> JobStore::PathsLocked(const StoredJob& job) {
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database_->Query("SELECT step, path, written FROM paths WHERE job = ?1 "
                       "ORDER BY step, position",
                       job.sequence));
  std::vector<std::vector<PathUse>> paths(job.job.steps.size());
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return paths;
    const int64_t step = query.Integer(0);
    if (step < 0 || size_t(step) >= paths.size()) {
      return absl::DataLossError(
          absl::StrCat("job database: job ", job.job.id, " has a path of step ", step));
    }
    paths[size_t(step)].push_back({query.Text(1), query.Text(1), query.Integer(2) != 0});
  }
}

absl::Status JobStore::TouchLocked(const StoredJob& job) {
  return database_->Run("UPDATE jobs SET version = version + 1 WHERE sequence = ?1", job.sequence)
      .status();
}

// Where a job goes its steps follow: what was running waits again or has failed, and what will not
// be run any more is skipped.
absl::Status JobStore::SetStateLocked(const StoredJob& job, JobState state, JobWish wish,
                                      const absl::Status& error) {
  const bool ended = state != JobState::kQueued && state != JobState::kPaused;
  const std::optional<int64_t> finished = ended ? std::optional(NowMicros()) : std::nullopt;
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("UPDATE jobs SET state = ?2, wish = ?3, owner = NULL, finished_us = ?4, "
                "error = ?5, error_code = ?6, version = version + 1 WHERE sequence = ?1",
                job.sequence, int64_t(state), int64_t(wish), finished,
                absl::string_view(error.message()), int64_t(error.code()))
          .status());
  const bool failed = state == JobState::kFailed;
  const StepState running = !ended ? StepState::kQueued
                                   : failed ? StepState::kFailed : StepState::kSkipped;
  const StepState waiting = ended ? StepState::kSkipped : StepState::kQueued;
  return database_
      ->Run("UPDATE steps SET finished_us = iif(state = 1, ?2, finished_us), "
            "state = iif(state = 1, ?3, ?4), eta_us = NULL, item = '' "
            "WHERE job = ?1 AND state IN (0, 1)",
            job.sequence, finished, int64_t(running), int64_t(waiting))
      .status();
}

absl::Status JobStore::Delete(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob job, GetLocked(id));
  if (!job.job.ended()) return WrongState(job.job, "has not ended; cancel it first");
  ODMOE_RETURN_IF_ERROR(
      database_->Run("DELETE FROM jobs WHERE sequence = ?1", job.sequence).status());
  return transaction.Commit();
}

absl::StatusOr<int> JobStore::Prune(const JobRetention& retention) {
  absl::MutexLock lock(&mutex_);
  const int64_t oldest = absl::ToUnixMicros(absl::Now() - retention.age);
  return database_->Run(
      "DELETE FROM jobs WHERE state IN (2, 3, 4) AND (finished_us < ?1 OR sequence NOT IN "
      "(SELECT sequence FROM jobs WHERE state IN (2, 3, 4) "
      " ORDER BY finished_us DESC, sequence DESC LIMIT ?2))",
      oldest, retention.jobs);
}

absl::StatusOr<bool> JobStore::HasQueued() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query("SELECT 1 FROM jobs WHERE state = 0 LIMIT 1"));
  return query.Step();
}

absl::StatusOr<bool> JobStore::UsesBelow(absl::string_view directory) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database_->Query("SELECT 1 FROM jobs JOIN paths ON job = sequence "
                       "WHERE state IN (0, 1, 5) AND (path = ?1 "
                       "  OR substr(path, 1, length(?1) + 1) = ?1 || '/') LIMIT 1",
                       directory));
  return query.Step();
}

absl::StatusOr<int64_t> JobStore::ForeignChanges() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query("PRAGMA data_version"));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  return query.Integer(0);
}

}  // namespace odmoe
