#include "services/conversion/jobs/local_job_queue.h"

#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int kMaxWorkers = 64;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr int kMaxListed = 1000;
// How soon another process's submit, cancel or death is noticed.
constexpr absl::Duration kForeignPoll = absl::Milliseconds(200);
constexpr absl::Duration kOrphanPoll = absl::Seconds(1);
// How soon a watch notices that its caller has given up.
constexpr absl::Duration kCancellationPoll = absl::Milliseconds(50);
// How long Cancel waits for the conversion to stop, which it does at its next chunk.
constexpr absl::Duration kCancelPatience = absl::Seconds(5);

class LocalJobQueue : public JobQueue {
 public:
  LocalJobQueue(std::unique_ptr<JobStore> store, std::unique_ptr<ConversionRunner> runner,
                const LocalJobQueueOptions& options);
  ~LocalJobQueue() override;

  absl::StatusOr<Job> Submit(const ConvertSpec& spec, absl::string_view request_id) override;
  absl::StatusOr<Job> Get(absl::string_view id) override { return store_->Get(id); }
  absl::StatusOr<std::vector<Job>> List(int limit) override;
  absl::StatusOr<Job> Watch(absl::string_view id, int64_t after_version,
                            const Cancellation* cancellation,
                            const std::function<bool(const Job&)>& on_change) override;
  absl::StatusOr<Job> Cancel(absl::string_view id) override;

 private:
  void Work();
  bool WaitForWork();
  void RunJob(const ClaimedJob& job);
  void Settle(absl::string_view id, const absl::Status& outcome);

  void FollowOtherProcesses();
  void CancelHere(absl::string_view id);

  void Changed();
  void WorkArrived();
  uint64_t changes() ABSL_LOCKS_EXCLUDED(mutex_);
  // Until something changed after `seen`, the queue stops, or the timeout.
  void WaitForChange(uint64_t seen, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<JobStore> store_;
  const std::unique_ptr<ConversionRunner> runner_;
  const absl::Duration progress_interval_;

  absl::Mutex mutex_;
  absl::CondVar changed_ ABSL_GUARDED_BY(mutex_);
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool work_waits_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::unordered_map<std::string, Cancellation*> running_ ABSL_GUARDED_BY(mutex_);

  std::vector<std::thread> threads_;
};

LocalJobQueue::LocalJobQueue(std::unique_ptr<JobStore> store,
                             std::unique_ptr<ConversionRunner> runner,
                             const LocalJobQueueOptions& options)
    : store_(std::move(store)),
      runner_(std::move(runner)),
      progress_interval_(options.progress_interval) {
  for (int i = 0; i < options.workers; ++i) threads_.emplace_back([this] { Work(); });
  threads_.emplace_back([this] { FollowOtherProcesses(); });
}

LocalJobQueue::~LocalJobQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [id, cancellation] : running_) cancellation->Cancel();
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

// The same request again: its answer is the first one's job, if it is indeed the same request.
absl::StatusOr<Job> SameRequest(const Job& first, const ConvertSpec& given) {
  if (first.spec.source != given.source || first.spec.destination != given.destination ||
      first.spec.outtype != given.outtype) {
    return absl::InvalidArgumentError(
        absl::StrCat("request_id was used before for job ", first.id, ", which differs"));
  }
  return first;
}

absl::StatusOr<Job> LocalJobQueue::Submit(const ConvertSpec& spec, absl::string_view request_id) {
  if (request_id.size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("request_id has ", request_id.size(),
                                                   " bytes, at most ", kMaxRequestIdBytes,
                                                   " are allowed"));
  }
  ODMOE_ASSIGN_OR_RETURN(NewJob job, runner_->Resolve(spec));
  job.request_id = std::string(request_id);
  if (!request_id.empty()) {
    // Before planning: by now the source may be gone, or the disk full of the first one's output.
    ODMOE_ASSIGN_OR_RETURN(std::optional<Job> first, store_->FindByRequest(request_id));
    if (first) return SameRequest(*first, job.given);
  }
  ODMOE_RETURN_IF_ERROR(runner_->Plan(job).status());
  ODMOE_ASSIGN_OR_RETURN(const Job queued, store_->Insert(job));
  WorkArrived();
  Changed();
  return SameRequest(queued, job.given);
}

absl::StatusOr<std::vector<Job>> LocalJobQueue::List(int limit) {
  if (limit < 1 || limit > kMaxListed) {
    return absl::InvalidArgumentError(
        absl::StrCat("limit ", limit, " is not between 1 and ", kMaxListed));
  }
  return store_->List(limit);
}

absl::StatusOr<Job> LocalJobQueue::Watch(absl::string_view id, int64_t after_version,
                                         const Cancellation* cancellation,
                                         const std::function<bool(const Job&)>& on_change) {
  int64_t seen_version = after_version;
  while (true) {
    const uint64_t seen_changes = changes();  // read first: a change while we look is not missed
    ODMOE_ASSIGN_OR_RETURN(Job job, store_->Get(id));
    if (job.version > seen_version) {
      seen_version = job.version;
      if (!on_change(job)) return job;
    }
    if (job.ended()) return job;
    while (changes() == seen_changes) {
      if (cancellation != nullptr && cancellation->cancelled()) {
        return absl::CancelledError("the watch was given up");
      }
      if (stopping()) return absl::UnavailableError("the job queue shuts down; watch again");
      WaitForChange(seen_changes, kCancellationPoll);
    }
  }
}

absl::StatusOr<Job> LocalJobQueue::Cancel(absl::string_view id) {
  ODMOE_ASSIGN_OR_RETURN(Job job, store_->RequestCancel(id));
  CancelHere(id);
  Changed();
  const absl::Time deadline = absl::Now() + kCancelPatience;
  while (!job.ended() && absl::Now() < deadline && !stopping()) {
    const uint64_t seen_changes = changes();
    ODMOE_ASSIGN_OR_RETURN(job, store_->Get(id));
    if (!job.ended()) WaitForChange(seen_changes, deadline - absl::Now());
  }
  return job;
}

void LocalJobQueue::Work() {
  while (WaitForWork()) {
    absl::StatusOr<std::optional<ClaimedJob>> claimed = store_->Claim();
    // On an error, too: FollowOtherProcesses looks again before long.
    if (!claimed.ok() || !claimed->has_value()) continue;
    WorkArrived();  // there may be more, for another worker
    Changed();
    RunJob(**claimed);
  }
}

bool LocalJobQueue::WaitForWork() {
  absl::MutexLock lock(&mutex_);
  while (!work_waits_ && !stopping_) changed_.Wait(&mutex_);
  work_waits_ = false;
  return !stopping_;
}

void LocalJobQueue::RunJob(const ClaimedJob& job) {
  Cancellation cancellation;
  {
    absl::MutexLock lock(&mutex_);
    running_[job.job.id] = &cancellation;
    if (stopping_ || job.cancel_requested) cancellation.Cancel();
  }
  absl::Time last_written = absl::InfinitePast();
  int last_step = 0;
  bool end_written = false;  // of that step
  absl::Status outcome =
      runner_->Run(job, cancellation, [&](const JobProgress& progress) {
        const absl::Time now = absl::Now();
        const bool begins = progress.step_number != last_step;
        if (begins) end_written = false;
        // A step's end is written whenever it comes, or the job would seem to have ended early; but
        // once, however often a conversion that exceeds its plan reports it.
        const bool ends = progress.done_bytes >= progress.total_bytes && !end_written;
        if (!begins && !ends && now - last_written < progress_interval_) return;
        end_written = end_written || ends;
        last_step = progress.step_number;
        last_written = now;
        // What cannot be written now is written with the next progress, or with the end.
        if (store_->SetProgress(job.job.id, progress).ok()) Changed();
      });
  {
    absl::MutexLock lock(&mutex_);
    running_.erase(job.job.id);
  }
  // Whatever kept it from cleaning up, such as a source that is gone, is not what was asked.
  if (job.cancel_requested) outcome = absl::CancelledError("asked to stop");
  Settle(job.job.id, outcome);
  Changed();
}

// A job whose end is not written down would seem to run for as long as this process lives, so a
// failed write (a full disk) is tried again.
void LocalJobQueue::Settle(absl::string_view id, const absl::Status& outcome) {
  while (true) {
    const bool interrupted = stopping() && absl::IsCancelled(outcome);
    const absl::Status written =
        interrupted ? store_->Requeue(id) : store_->Finish(id, outcome);
    if (written.ok() || absl::IsFailedPrecondition(written)) return;
    if (stopping()) return;  // the next queue finds the job without a living owner
    WaitForChange(changes(), kForeignPoll);
  }
}

// Whatever other processes do to the database is noticed here, and made to look like a change of
// our own.
void LocalJobQueue::FollowOtherProcesses() {
  int64_t seen = 0;
  absl::Time next_orphans = absl::InfinitePast();
  while (!stopping()) {
    if (absl::StatusOr<int64_t> foreign = store_->ForeignChanges();
        foreign.ok() && *foreign != seen) {
      seen = *foreign;
      Changed();
    }
    // Each time, not only after a change: a request may have come before its job was in running_.
    if (absl::StatusOr<std::vector<std::string>> ids = store_->CancelRequests(); ids.ok()) {
      for (const std::string& id : *ids) CancelHere(id);
    }
    if (absl::Now() >= next_orphans) {
      // An error is tried again a second later.
      if (absl::StatusOr<bool> found = store_->RequeueOrphans(); found.ok() && *found) Changed();
      next_orphans = absl::Now() + kOrphanPoll;
    }
    if (absl::StatusOr<bool> queued = store_->HasQueued(); queued.ok() && *queued) WorkArrived();
    absl::MutexLock lock(&mutex_);
    if (!stopping_) mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kForeignPoll);
  }
}

void LocalJobQueue::CancelHere(absl::string_view id) {
  absl::MutexLock lock(&mutex_);
  const auto found = running_.find(std::string(id));
  if (found != running_.end()) found->second->Cancel();
}

void LocalJobQueue::Changed() {
  absl::MutexLock lock(&mutex_);
  ++changes_;
  changed_.SignalAll();
}

void LocalJobQueue::WorkArrived() {
  absl::MutexLock lock(&mutex_);
  work_waits_ = true;
  changed_.SignalAll();
}

uint64_t LocalJobQueue::changes() {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

void LocalJobQueue::WaitForChange(uint64_t seen, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (changes_ == seen && !stopping_) {
    if (changed_.WaitWithDeadline(&mutex_, deadline)) return;
  }
}

bool LocalJobQueue::stopping() {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobQueue>> OpenLocalJobQueue(const LocalJobQueueOptions& options,
                                                            ConversionFunctions functions) {
  if (options.workers < 0 || options.workers > kMaxWorkers) {
    return absl::InvalidArgumentError(
        absl::StrCat("workers ", options.workers, " is not between 0 and ", kMaxWorkers));
  }
  ODMOE_ASSIGN_OR_RETURN(PathRoots roots, PathRoots::Create(options.roots));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<JobStore> store, JobStore::Open(options.database_path));
  return std::make_unique<LocalJobQueue>(
      std::move(store),
      std::make_unique<ConversionRunner>(std::move(roots), std::move(functions)), options);
}

}  // namespace odmoe
