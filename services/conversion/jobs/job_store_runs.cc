// What the one who runs a job does to it, and what becomes of those whose runner died.
#include "services/conversion/jobs/job_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"

namespace odmoe {

absl::StatusOr<std::optional<ClaimedJob>> JobStore::Claim() {
  static const std::string sql = absl::StrCat(
      "UPDATE jobs SET state = 1, owner = ?1, started_us = coalesce(started_us, ?2), partial = 1, "
      "  version = version + 1 WHERE state = 0 AND sequence = "
      "(SELECT sequence FROM jobs WHERE state = 0 ORDER BY priority DESC, sequence LIMIT 1) "
      "RETURNING ", kJobColumns);
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query,
                         database_->Query(sql.c_str(), owner_->owner(), NowMicros()));
  ODMOE_ASSIGN_OR_RETURN(std::vector<StoredJob> claimed, SelectLocked(std::move(query)));
  if (claimed.empty()) return std::nullopt;
  StoredJob& stored = claimed.front();
  ClaimedJob result;
  ODMOE_ASSIGN_OR_RETURN(result.paths, PathsLocked(stored));
  result.cancelled = stored.wish == JobWish::kCancel;
  result.job = std::move(stored.job);
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return result;
}

// The job, where this store runs it.
absl::StatusOr<StoredJob> JobStore::GetOwnedLocked(absl::string_view id) {
  static const std::string sql = SelectJobs("WHERE id = ?1 AND owner = ?2 AND state = 1");
  ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), id, owner_->owner()));
  ODMOE_ASSIGN_OR_RETURN(std::vector<StoredJob> found, SelectLocked(std::move(query)));
  if (!found.empty()) return std::move(found.front());
  return absl::FailedPreconditionError(
      absl::StrCat("job ", id, " is not run by this process any more"));
}

absl::Status JobStore::StartStep(absl::string_view id, size_t step) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob job, GetOwnedLocked(id));
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("UPDATE steps SET state = 1, started_us = coalesce(started_us, ?3) "
                "WHERE job = ?1 AND number = ?2",
                job.sequence, int64_t(step), NowMicros())
          .status());
  ODMOE_RETURN_IF_ERROR(TouchLocked(job));
  return transaction.Commit();
}

absl::Status JobStore::SetProgress(absl::string_view id, size_t step,
                                   const JobProgress& progress) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob job, GetOwnedLocked(id));
  ODMOE_RETURN_IF_ERROR(WriteProgress(*database_, job.sequence, int64_t(step), progress));
  ODMOE_RETURN_IF_ERROR(TouchLocked(job));
  return transaction.Commit();
}

absl::Status JobStore::FinishStep(absl::string_view id, size_t step, const StepResult& result) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob job, GetOwnedLocked(id));
  ODMOE_RETURN_IF_ERROR(WriteResult(*database_, job.sequence, int64_t(step), result));
  ODMOE_RETURN_IF_ERROR(TouchLocked(job));
  return transaction.Commit();
}

absl::Status JobStore::Finish(absl::string_view id, const absl::Status& outcome, bool kept_work) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob job, GetOwnedLocked(id));
  ODMOE_RETURN_IF_ERROR(FinishLocked(job, outcome, kept_work));
  return transaction.Commit();
}

absl::Status JobStore::FinishLocked(const StoredJob& job, const absl::Status& outcome,
                                    bool kept_work) {
  if (outcome.ok()) return SetStateLocked(job, JobState::kSucceeded, JobWish::kNone);
  if (job.wish == JobWish::kCancel) {
    // Asked to pause first, so its work is still there: claimed again, it is removed.
    if (kept_work) return SetStateLocked(job, JobState::kQueued, JobWish::kCancel);
    return SetStateLocked(job, JobState::kCancelled, JobWish::kNone);
  }
  if (!absl::IsCancelled(outcome)) {
    return SetStateLocked(job, JobState::kFailed, JobWish::kNone, outcome);
  }
  const bool pause = job.wish == JobWish::kPause;
  return SetStateLocked(job, pause ? JobState::kPaused : JobState::kQueued, JobWish::kNone);
}

absl::StatusOr<std::vector<std::pair<std::string, JobWish>>> JobStore::Wishes() {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(
      SqliteQuery query,
      database_->Query("SELECT id, wish FROM jobs WHERE state = 1 AND owner = ?1 AND wish > 0",
                       owner_->owner()));
  std::vector<std::pair<std::string, JobWish>> wishes;
  while (true) {
    ODMOE_ASSIGN_OR_RETURN(const bool more, query.Step());
    if (!more) return wishes;
    wishes.emplace_back(query.Text(0),
                        query.Integer(1) == 1 ? JobWish::kCancel : JobWish::kPause);
  }
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
  static const std::string sql = SelectJobs("WHERE state = 1 AND owner = ?1");
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> dead, DeadOwnersLocked());
  if (dead.empty()) return false;
  // Whoever comes first wins: the others find no such rows any more.
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  bool found = false;
  for (const int64_t owner : dead) {
    ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, database_->Query(sql.c_str(), owner));
    ODMOE_ASSIGN_OR_RETURN(const std::vector<StoredJob> orphans, SelectLocked(std::move(query)));
    for (const StoredJob& orphan : orphans) ODMOE_RETURN_IF_ERROR(OrphanLocked(orphan));
    found = found || !orphans.empty();
  }
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return found;
}

absl::Status JobStore::OrphanLocked(const StoredJob& job) {
  ODMOE_RETURN_IF_ERROR(
      database_->Run("UPDATE jobs SET deaths = deaths + 1 WHERE sequence = ?1", job.sequence)
          .status());
  const bool cancel = job.wish == JobWish::kCancel;
  if (job.deaths + 1 < kMaxDeaths) {
    const bool pause = job.wish == JobWish::kPause;
    return SetStateLocked(job, pause ? JobState::kPaused : JobState::kQueued,
                          cancel ? JobWish::kCancel : JobWish::kNone);
  }
  if (cancel) return SetStateLocked(job, JobState::kCancelled, JobWish::kNone);
  return SetStateLocked(job, JobState::kFailed, JobWish::kNone,
                        absl::AbortedError("given up: every process that ran this job died"));
}

}  // namespace odmoe
