// What anyone may ask of a job: to be cancelled, paused, resumed, retried.
#include "services/conversion/jobs/job_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {

absl::StatusOr<Job> JobStore::RequestCancel(absl::string_view id) {
  return Change(id, &JobStore::CancelLocked);
}

absl::StatusOr<Job> JobStore::RequestPause(absl::string_view id) {
  return Change(id, &JobStore::PauseLocked);
}

absl::StatusOr<Job> JobStore::Resume(absl::string_view id) {
  return Change(id, &JobStore::ResumeLocked);
}

absl::StatusOr<Job> JobStore::Retry(absl::string_view id) {
  return Change(id, &JobStore::RetryLocked);
}

absl::StatusOr<Job> JobStore::Change(absl::string_view id,
                                     absl::Status (JobStore::*change)(const StoredJob&)) {
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(*database_));
  ODMOE_ASSIGN_OR_RETURN(const StoredJob before, GetLocked(id));
  ODMOE_RETURN_IF_ERROR((this->*change)(before));
  ODMOE_ASSIGN_OR_RETURN(StoredJob after, GetLocked(id));
  ODMOE_RETURN_IF_ERROR(transaction.Commit());
  return std::move(after.job);
}

absl::Status JobStore::SetWishLocked(const StoredJob& job, JobWish wish) {
  ODMOE_RETURN_IF_ERROR(
      database_->Run("UPDATE jobs SET wish = ?2 WHERE sequence = ?1", job.sequence, int64_t(wish))
          .status());
  return TouchLocked(job);
}

absl::Status JobStore::CancelLocked(const StoredJob& job) {
  if (job.job.ended()) return WrongState(job.job, "has ended already");
  if (job.job.state == JobState::kRunning) return SetWishLocked(job, JobWish::kCancel);
  if (job.partial) return SetStateLocked(job, JobState::kQueued, JobWish::kCancel);
  return SetStateLocked(job, JobState::kCancelled, JobWish::kNone);
}

absl::Status JobStore::PauseLocked(const StoredJob& job) {
  if (job.job.ended()) return WrongState(job.job, "has ended already");
  if (job.wish == JobWish::kCancel) return WrongState(job.job, "is being cancelled");
  if (job.job.state == JobState::kPaused) return absl::OkStatus();
  if (job.job.state == JobState::kRunning) return SetWishLocked(job, JobWish::kPause);
  return SetStateLocked(job, JobState::kPaused, JobWish::kNone);
}

absl::Status JobStore::ResumeLocked(const StoredJob& job) {
  // One that still runs stops all the same, and goes back to the queue by itself.
  if (job.wish == JobWish::kPause) return SetWishLocked(job, JobWish::kNone);
  if (job.job.state != JobState::kPaused) return WrongState(job.job, "is not paused");
  return SetStateLocked(job, JobState::kQueued, JobWish::kNone);
}

absl::Status JobStore::RetryLocked(const StoredJob& job) {
  if (job.job.state != JobState::kFailed && job.job.state != JobState::kCancelled) {
    return WrongState(job.job, "neither failed nor was cancelled");
  }
  ODMOE_RETURN_IF_ERROR(CheckRoomLocked());
  ODMOE_ASSIGN_OR_RETURN(const auto paths, PathsLocked(job));
  for (const auto& step : paths) {
    for (const PathUse& use : step) {
      ODMOE_RETURN_IF_ERROR(CheckPathLocked(job.sequence, use));
    }
  }
  ODMOE_RETURN_IF_ERROR(
      database_
          ->Run("UPDATE steps SET state = 0, phase = '', phase_number = 0, phase_count = 0, "
                "done_bytes = 0, total_bytes = 0, bytes_per_second = 0, started_us = NULL, "
                "finished_us = NULL WHERE job = ?1 AND state > 2",
                job.sequence)
          .status());
  ODMOE_RETURN_IF_ERROR(
      database_->Run("UPDATE jobs SET deaths = 0 WHERE sequence = ?1", job.sequence).status());
  return SetStateLocked(job, JobState::kQueued, JobWish::kNone);
}

}  // namespace odmoe
