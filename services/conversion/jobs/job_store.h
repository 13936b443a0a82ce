// The table of jobs, and every change of state a job can make.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/conversion/jobs/owner_lock.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// A job to be queued: as the client gave it, and with its paths resolved.
struct NewJob {
  ConvertSpec given;
  std::string source_path;       // resolved
  std::string destination_path;  // resolved
  std::string request_id;        // or ""
};

// A job this process is to run.
struct ClaimedJob {
  Job job;
  std::string source_path;       // resolved when it was submitted
  std::string destination_path;
  bool cancel_requested = false;  // then all there is to do is to remove its partial output
};

// Jobs in an SQLite file that several processes may have open. A running job belongs to the store
// that claimed it for as long as that store lives (OwnerLock); every other change is open to all.
//
//   queued --claim--> running --finish--> succeeded | failed | cancelled
//     ^ |                |
//     | +--cancel--------|--------------> cancelled
//     +--requeue (drain, or the owner died)
//
// A process that is killed leaves partial output. To cancel its job is therefore work for a runner:
// the job is queued with its wish to be cancelled, and whoever claims it cleans up.
//
// Every change adds one to the job's version. Thread-safe.
class JobStore {
 public:
  static constexpr int kMaxWaiting = 1000;  // queued jobs
  static constexpr int kMaxDeaths = 3;      // of the processes that ran a job, until it is given up
  static constexpr absl::Duration kKeepEnded = absl::Hours(24 * 30);

  // Opens or creates, forgets jobs that ended longer than kKeepEnded ago, and requeues orphans.
  // INVALID_ARGUMENT: not an SQLite file, or one of another program. FAILED_PRECONDITION: written
  // by a newer odmoe. DATA_LOSS: damaged.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path);

  // ABORTED: a job that has not ended uses the destination. RESOURCE_EXHAUSTED: kMaxWaiting.
  // A known request_id returns its job and inserts nothing.
  absl::StatusOr<Job> Insert(const NewJob& job);
  absl::StatusOr<std::optional<Job>> FindByRequest(absl::string_view request_id);
  absl::StatusOr<Job> Get(absl::string_view id);  // NOT_FOUND
  absl::StatusOr<std::vector<Job>> List(int limit);  // newest first

  // The oldest queued job, now running and this store's; none where nothing is queued.
  absl::StatusOr<std::optional<ClaimedJob>> Claim();
  // FAILED_PRECONDITION, from all three: this store does not own the job.
  absl::Status SetProgress(absl::string_view id, const JobProgress& progress);
  // `outcome` OK: succeeded. CANCELLED: cancelled. Other: failed, and why.
  absl::Status Finish(absl::string_view id, const absl::Status& outcome);
  // Back to the queue; or cancelled, where that was asked for meanwhile.
  absl::Status Requeue(absl::string_view id);

  // Cancels a queued job that has left nothing behind; asks the
  // owner of any other to. FAILED_PRECONDITION: it has ended.
  absl::StatusOr<Job> RequestCancel(absl::string_view id);
  // Jobs this store owns that were asked to stop.
  absl::StatusOr<std::vector<std::string>> CancelRequests();

  absl::StatusOr<bool> HasQueued();
  // A number that differs from the last call's where another process has changed the file since.
  absl::StatusOr<int64_t> ForeignChanges();

  // Requeues running jobs whose owner is dead; gives up on those that outlived too many owners.
  // True: there were some.
  absl::StatusOr<bool> RequeueOrphans();

 private:
  JobStore(std::unique_ptr<SqliteDatabase> database, std::unique_ptr<OwnerLock> owner)
      : database_(std::move(database)), owner_(std::move(owner)) {}

  absl::StatusOr<Job> GetLocked(absl::string_view id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::optional<Job>> FindByRequestLocked(absl::string_view request_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRoomLocked(const NewJob& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<int64_t>> DeadOwnersLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  const std::unique_ptr<SqliteDatabase> database_ ABSL_PT_GUARDED_BY(mutex_);
  const std::unique_ptr<OwnerLock> owner_;
};

}  // namespace odmoe
