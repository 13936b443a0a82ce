// The table of jobs, and every change of state a job can make.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/conversion/jobs/job_rows.h"
#include "services/conversion/jobs/owner_lock.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// A path that a step reads or writes.
struct PathUse {
  std::string given;
  std::string resolved;
  bool written = false;
};

// A job to be queued: as the client gave it, its paths absolute, and what they resolve to.
struct NewJob {
  JobSpec given;
  std::vector<std::vector<PathUse>> paths;  // by step
  std::string request_id;                   // or ""
};

// A job this process is to run.
struct ClaimedJob {
  Job job;
  std::vector<std::vector<PathUse>> paths;  // by step, resolved when it was submitted
  bool cancelled = false;  // then all there is to do is to remove its partial output
};

// Which ended jobs are kept.
struct JobRetention {
  int64_t jobs = 1000;                          // the newest
  absl::Duration age = absl::Hours(24 * 30);    // since their end
};

// Jobs in an SQLite file that several processes may have open. A running job belongs to the store
// that claimed it for as long as that store lives (OwnerLock); every other change is open to all.
//
//   queued --Claim--> running --Finish--> succeeded | failed | cancelled
//     ^ ^               | |                  ^          |        |
//     | |               | +--(pause wished)--|--> paused|        |
//     | +--(drain, or the owner died)        |     | |  |        |
//     +---------------------Resume-----------|-----+ |  |        |
//     +---------------------Retry------------|-------|--+--------+
//     cancel: at once where nothing was written yet, else by way of a runner, who cleans up
//
// A process that is killed or drained leaves partial output. To cancel its job is therefore work
// for a runner: the job is queued with its wish to be cancelled, and whoever claims it cleans up.
//
// Every change adds one to the job's version. Thread-safe.
class JobStore {
 public:
  static constexpr int kMaxWaiting = 1000;  // queued jobs
  static constexpr int kMaxDeaths = 3;      // of the processes that ran a job, until it is given up

  // Opens or creates, and requeues orphans.
  // INVALID_ARGUMENT: not an SQLite file, or one of another program. FAILED_PRECONDITION: written
  // by a newer odmoe. DATA_LOSS: damaged.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path);

  // ABORTED: a job that has not ended writes a path that this one uses, or reads one that it
  // writes. RESOURCE_EXHAUSTED: kMaxWaiting. A known request_id returns its job and inserts
  // nothing.
  absl::StatusOr<Job> Insert(const NewJob& job);
  absl::StatusOr<std::optional<Job>> FindByRequest(absl::string_view request_id);
  absl::StatusOr<Job> Get(absl::string_view id);     // NOT_FOUND
  absl::StatusOr<std::vector<Job>> List(int limit);  // newest first

  // The queued job whose turn it is, now running and this store's; none where nothing is queued.
  absl::StatusOr<std::optional<ClaimedJob>> Claim();
  // FAILED_PRECONDITION, from these four: this store does not own the job.
  absl::Status StartStep(absl::string_view id, size_t step);
  absl::Status SetProgress(absl::string_view id, size_t step, const JobProgress& progress);
  absl::Status FinishStep(absl::string_view id, size_t step, const StepResult& result);
  // `outcome` OK: succeeded. CANCELLED: cancelled or paused, as was wished, and back to the queue
  // where nothing was. Other: failed, and why. `kept_work`: partial output was left in place.
  absl::Status Finish(absl::string_view id, const absl::Status& outcome, bool kept_work);

  // See JobQueue. What a running job is asked to do, its owner learns from Wishes.
  absl::StatusOr<Job> RequestCancel(absl::string_view id);
  absl::StatusOr<Job> RequestPause(absl::string_view id);
  absl::StatusOr<Job> Resume(absl::string_view id);
  absl::StatusOr<Job> Retry(absl::string_view id);
  absl::Status Delete(absl::string_view id);
  // Jobs this store owns that were asked to stop, and how.
  absl::StatusOr<std::vector<std::pair<std::string, JobWish>>> Wishes();

  // Forgets ended jobs that are not to be kept; their number.
  absl::StatusOr<int> Prune(const JobRetention& retention);

  absl::StatusOr<bool> HasQueued();
  // Whether a job that has not ended reads or writes the resolved path `directory` or one below it.
  absl::StatusOr<bool> UsesBelow(absl::string_view directory);
  // A number that differs from the last call's where another process has changed the file since.
  absl::StatusOr<int64_t> ForeignChanges();

  // Requeues running jobs whose owner is dead; gives up on those that outlived too many owners.
  // True: there were some.
  absl::StatusOr<bool> RequeueOrphans();

 private:
  JobStore(std::unique_ptr<SqliteDatabase> database, std::unique_ptr<OwnerLock> owner)
      : database_(std::move(database)), owner_(std::move(owner)) {}

  // One job, changed under the lock by one of the methods below.
  absl::StatusOr<Job> Change(absl::string_view id,
                             absl::Status (JobStore::*change)(const StoredJob&));

  absl::StatusOr<StoredJob> GetLocked(absl::string_view id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<StoredJob> GetOwnedLocked(absl::string_view id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<StoredJob>> SelectLocked(SqliteQuery query)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::optional<Job>> FindByRequestLocked(absl::string_view request_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRoomLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckPathLocked(int64_t self, const PathUse& use)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<std::vector<PathUse>>> PathsLocked(const StoredJob& job)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SetStateLocked(const StoredJob& job, JobState state, JobWish wish,
                              const absl::Status& error = absl::OkStatus())
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SetWishLocked(const StoredJob& job, JobWish wish)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TouchLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<int64_t>> DeadOwnersLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OrphanLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinishLocked(const StoredJob& job, const absl::Status& outcome, bool kept_work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CancelLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status PauseLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ResumeLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RetryLocked(const StoredJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  const std::unique_ptr<SqliteDatabase> database_ ABSL_PT_GUARDED_BY(mutex_);
  const std::unique_ptr<OwnerLock> owner_;
};

}  // namespace odmoe
