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

constexpr int64_t kQueued = int64_t(JobState::kQueued);
constexpr int64_t kRunning = int64_t(JobState::kRunning);
constexpr int64_t kSucceeded = int64_t(JobState::kSucceeded);
constexpr int64_t kFailed = int64_t(JobState::kFailed);
constexpr int64_t kCancelled = int64_t(JobState::kCancelled);
static_assert(kQueued == 0 && kRunning == 1, "the one_writer index names these numbers");

int64_t NowMicros() { return absl::ToUnixMicros(absl::Now()); }

// Short enough to type; 64 random bits, and UNIQUE in the table.
std::string NewJobId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

std::string SelectJobs(absl::string_view rest) {
  return absl::StrCat("SELECT ", kJobColumns, " FROM jobs ", rest);
}

absl::Status OwnedElsewhere(absl::string_view id) {
  return absl::FailedPreconditionError(
      absl::StrCat("job ", id, " is not run by this process any more"));
}

absl::Status RequireOne(const absl::StatusOr<int>& changed, absl::string_view id) {
  if (!changed.ok()) return changed.status();
  return *changed == 1 ? absl::OkStatus() : OwnedElsewhere(id);
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
  const int64_t oldest_kept = absl::ToUnixMicros(absl::Now() - kKeepEnded);
  ODMOE_RETURN_IF_ERROR(
      database->Run("DELETE FROM jobs WHERE finished_us < ?1", oldest_kept).status());
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
  ODMOE_RETURN_IF_ERROR(CheckRoomLocked(job));
  const std::string id = NewJobId();
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("INSERT INTO jobs (id, request_id, source, destination, outtype, source_path, "
                "destination_path, state, created_us) "
                "VALUES (?1, nullif(?2, ''), ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                absl::string_view(id), absl::string_view(job.request_id),
                absl::string_view(job.given.source), absl::string_view(job.given.destination),
                absl::string_view(job.given.outtype), absl::string_view(job.source_path),
                absl::string_view(job.destination_path), kQueued, NowMicros())
          .status());
  ODMOE_ASSIGN_OR_RETURN(Job inserted, GetLocked(id));
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return inserted;
}

absl::Status JobStore::CheckRoomLocked(const NewJob& job) {
  {
    // A model directory is many files, so a destination within another one's is a conflict too, and
    // so is a destination that another job still has to read. "/" sorts before "0".
    ODMOE_ASSIGN_OR_RETURN(
        SqliteQuery query,
        database_->Query(
            "SELECT id FROM jobs WHERE state IN (0, 1) AND ("
            "  destination_path = ?1"
            "  OR substr(?1, 1, length(destination_path) + 1) = destination_path || '/'"
            "  OR (destination_path >= ?1 || '/' AND destination_path < ?1 || '0')"
            "  OR source_path = ?1) LIMIT 1",
            absl::string_view(job.destination_path)));
    ODMOE_ASSIGN_OR_RETURN(const bool taken, query.Step());
    if (taken) {
      return absl::AbortedError(absl::StrCat("job ", query.Text(0), ", which has not ended, uses ",
                                             job.given.destination));
    }
  }
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query("SELECT count(*) FROM jobs WHERE state = 0"));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  if (query.Integer(0) >= kMaxWaiting) {
    return absl::ResourceExhaustedError(absl::StrCat(kMaxWaiting, " jobs wait already"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Job>> JobStore::FindByRequest(absl::string_view request_id) {
  absl::MutexLock lock(&mutex_);
  return FindByRequestLocked(request_id);
}

absl::StatusOr<std::optional<Job>> JobStore::FindByRequestLocked(absl::string_view request_id) {
  static const std::string sql = SelectJobs("WHERE request_id = ?1");
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), request_id));
  ODMOE_ASSIGN_OR_RETURN(const bool found, query.Step());
  if (!found) return std::nullopt;
  ODMOE_ASSIGN_OR_RETURN(Job job, JobFromRow(query));
  return job;
}

absl::StatusOr<Job> JobStore::Get(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  return GetLocked(id);
}

absl::StatusOr<Job> JobStore::GetLocked(absl::string_view id) {
  static const std::string sql = SelectJobs("WHERE id = ?1");
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), id));
  ODMOE_ASSIGN_OR_RETURN(const bool found, query.Step());
  if (!found) return absl::NotFoundError("no such job");
  return JobFromRow(query);
}

absl::StatusOr<std::vector<Job>> JobStore::List(int limit) {
  static const std::string sql = SelectJobs("ORDER BY sequence DESC LIMIT ?1");
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), int64_t{limit}));
  std::vector<Job> jobs;
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return jobs;
    ODMOE_ASSIGN_OR_RETURN(Job job, JobFromRow(query));
    jobs.push_back(std::move(job));
  }
}

absl::StatusOr<std::optional<ClaimedJob>> JobStore::Claim() {
  static const std::string sql = absl::StrCat(
      "UPDATE jobs SET state = 1, owner = ?1, started_us = coalesce(started_us, ?2), "
      "  version = version + 1 "
      "WHERE sequence = (SELECT min(sequence) FROM jobs WHERE state = 0) AND state = 0 "
      "RETURNING ", kJobColumns, ", source_path, destination_path, cancel_requested");
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query(sql.c_str(), owner_->owner(), NowMicros()));
  ODMOE_ASSIGN_OR_RETURN(const bool claimed, query.Step());
  if (!claimed) return std::nullopt;
  ClaimedJob result;
  ODMOE_ASSIGN_OR_RETURN(result.job, JobFromRow(query));
  result.source_path = query.Text(kJobColumnCount);
  result.destination_path = query.Text(kJobColumnCount + 1);
  result.cancel_requested = query.Integer(kJobColumnCount + 2) != 0;
  ODMOE_RETURN_IF_ERROR(query.Step().status());  // commits
  return result;
}

absl::Status JobStore::SetProgress(absl::string_view id, const JobProgress& progress) {
  std::optional<int64_t> eta;
  if (progress.eta) eta = absl::ToInt64Microseconds(*progress.eta);
  absl::MutexLock lock(&mutex_);
  return RequireOne(
      database_->Run("UPDATE jobs SET step = ?3, step_number = ?4, step_count = ?5, "
                     "done_bytes = ?6, total_bytes = ?7, bytes_per_second = ?8, eta_us = ?9, "
                     "item = ?10, version = version + 1 "
                     "WHERE id = ?1 AND owner = ?2 AND state = 1",
                     id, owner_->owner(), absl::string_view(progress.step),
                     int64_t{progress.step_number}, int64_t{progress.step_count},
                     int64_t(progress.done_bytes), int64_t(progress.total_bytes),
                     progress.bytes_per_second, eta, absl::string_view(progress.item)),
      id);
}

absl::Status JobStore::Finish(absl::string_view id, const absl::Status& outcome) {
  int64_t state = kFailed;
  if (outcome.ok()) state = kSucceeded;
  if (absl::IsCancelled(outcome)) state = kCancelled;
  const bool failed = state == kFailed;
  absl::MutexLock lock(&mutex_);
  return RequireOne(
      database_->Run("UPDATE jobs SET state = ?3, finished_us = ?4, error = ?5, error_code = ?6, "
                     "eta_us = NULL, item = '', owner = NULL, version = version + 1 "
                     "WHERE id = ?1 AND owner = ?2 AND state = 1",
                     id, owner_->owner(), state, NowMicros(),
                     failed ? absl::string_view(outcome.message()) : absl::string_view(),
                     failed ? int64_t(outcome.code()) : int64_t{0}),
      id);
}

absl::Status JobStore::Requeue(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  return RequireOne(
      database_->Run("UPDATE jobs SET state = iif(cancel_requested, 4, 0), "
                     "finished_us = iif(cancel_requested, ?3, NULL), "
                     "eta_us = NULL, owner = NULL, version = version + 1 "
                     "WHERE id = ?1 AND owner = ?2 AND state = 1",
                     id, owner_->owner(), NowMicros()),
      id);
}

absl::StatusOr<Job> JobStore::RequestCancel(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const Job before, GetLocked(id));
  if (before.ended()) {
    return absl::FailedPreconditionError(absl::StrCat("job ", id, " has ended already"));
  }
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("UPDATE jobs SET cancel_requested = 1, version = version + 1, "
                "finished_us = iif(state = 0 AND deaths = 0, ?2, finished_us), "
                "state = iif(state = 0 AND deaths = 0, 4, state) WHERE id = ?1",
                id, NowMicros())
          .status());
  ODMOE_ASSIGN_OR_RETURN(Job after, GetLocked(id));
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return after;
}

absl::StatusOr<std::vector<std::string>> JobStore::CancelRequests() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database_->Query(
          "SELECT id FROM jobs WHERE state = 1 AND owner = ?1 AND cancel_requested = 1",
          owner_->owner()));
  std::vector<std::string> ids;
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return ids;
    ids.push_back(query.Text(0));
  }
}

absl::StatusOr<bool> JobStore::HasQueued() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query("SELECT 1 FROM jobs WHERE state = 0 LIMIT 1"));
  return query.Step();
}

absl::StatusOr<int64_t> JobStore::ForeignChanges() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query("PRAGMA data_version"));
  ODMOE_RETURN_IF_ERROR(query.Step().status());
  return query.Integer(0);
}

absl::StatusOr<std::vector<int64_t>> JobStore::DeadOwnersLocked() {
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query("SELECT DISTINCT owner FROM jobs WHERE state = 1"));
  std::vector<int64_t> dead;
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return dead;
    ODMOE_ASSIGN_OR_RETURN(const bool alive, owner_->IsAlive(query.Integer(0)));
    if (!alive) dead.push_back(query.Integer(0));
  }
}

absl::StatusOr<bool> JobStore::RequeueOrphans() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> dead, DeadOwnersLocked());
  int changed = 0;
  for (const int64_t owner : dead) {
    // The owner is dead for good, so whoever comes first wins and the others change nothing.
    ODMOE_ASSIGN_OR_RETURN(
        const int rows,
        database_->Run("UPDATE jobs SET owner = NULL, eta_us = NULL, deaths = deaths + 1, "
                       "version = version + 1, "
                       "state = iif(deaths + 1 < ?2, 0, iif(cancel_requested, 4, 3)), "
                       "finished_us = iif(deaths + 1 < ?2, NULL, ?3), "
                       "error = iif(deaths + 1 < ?2 OR cancel_requested, '', ?4), "
                       "error_code = iif(deaths + 1 < ?2 OR cancel_requested, 0, ?5) "
                       "WHERE state = 1 AND owner = ?1",
                       owner, int64_t{kMaxDeaths}, NowMicros(),
                       absl::string_view("given up: every process that ran this job died"),
                       int64_t(absl::StatusCode::kAborted)));
    changed += rows;
  }
  return changed > 0;
}

}  // namespace odmoe
