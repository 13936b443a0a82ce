#include "services/conversion/jobs/local_job_queue.h"

#include <filesystem>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/posix_error.h"

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
// How long Cancel and Pause wait for the work to stop, which it does at its next chunk.
constexpr absl::Duration kStopPatience = absl::Seconds(5);
constexpr absl::Duration kPruneInterval = absl::Hours(1);

class LocalJobQueue : public HostedJobQueue {
 public:
  LocalJobQueue(std::unique_ptr<JobStore> store, std::unique_ptr<ConversionRunner> runner,
                const LocalJobQueueOptions& options);
  ~LocalJobQueue() override;

  absl::StatusOr<Job> Submit(const JobSpec& spec, absl::string_view request_id) override;
  absl::StatusOr<Job> Get(absl::string_view id) override { return store_->Get(id); }
  absl::StatusOr<std::vector<Job>> List(int limit) override;
  absl::StatusOr<Job> Watch(absl::string_view id, const WatchOptions& options,
                            const std::function<bool(const Job&)>& on_change) override;
  absl::StatusOr<Job> Cancel(absl::string_view id) override;
  absl::StatusOr<Job> Pause(absl::string_view id) override;
  absl::StatusOr<Job> Resume(absl::string_view id) override;
  absl::StatusOr<Job> Retry(absl::string_view id) override;
  absl::Status Delete(absl::string_view id) override;
  absl::StatusOr<bool> UsesBelow(const std::string& directory) override;

 private:
  void Work();
  bool WaitForWork();
  void RunJob(const ClaimedJob& job);
  absl::Status RunSteps(const ClaimedJob& job, const Cancellation& cancellation);
  std::function<void(const JobProgress&)> ProgressWriter(const std::string& id, size_t step);
  absl::Status WriteDown(const std::function<absl::Status()>& write);
  void Settle(absl::string_view id, const absl::Status& outcome, bool kept_work);

  void FollowOtherProcesses();
  // Asks a job that runs here to stop.
  void StopHere(absl::string_view id, JobWish wish);
  // Waits, within kStopPatience, until the job is as `done` says.
  absl::StatusOr<Job> AwaitStop(Job job, bool (*done)(const Job&));

  void Changed();
  void WorkArrived();
  uint64_t changes() ABSL_LOCKS_EXCLUDED(mutex_);
  // Until something changed after `seen`, the queue stops, or the timeout.
  void WaitForChange(uint64_t seen, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<JobStore> store_;
  const std::unique_ptr<ConversionRunner> runner_;
  const absl::Duration progress_interval_;
  const JobRetention retention_;

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
      progress_interval_(options.progress_interval),
      retention_(options.retention) {
  for (int i = 0; i < options.workers; ++i) threads_.emplace_back([this] { Work(); });
  threads_.emplace_back([this] { FollowOtherProcesses(); });
}

LocalJobQueue::~LocalJobQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [id, cancellation] : running_) cancellation->CancelAndKeepWork();
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

// The same request again: its answer is the first one's job, if it is indeed the same request.
absl::StatusOr<Job> SameRequest(const Job& first, const JobSpec& given) {
  if (first.spec == given) return first;
  return absl::AlreadyExistsError(
      absl::StrCat("request_id was used before for job ", first.id, ", which differs"));
}

absl::StatusOr<Job> LocalJobQueue::Submit(const JobSpec& spec, absl::string_view request_id) {
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
  ODMOE_RETURN_IF_ERROR(runner_->Plan(job));
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

absl::StatusOr<Job> LocalJobQueue::Watch(absl::string_view id, const WatchOptions& options,
                                         const std::function<bool(const Job&)>& on_change) {
  int64_t seen_version = options.after_version;
  while (true) {
    const uint64_t seen_changes = changes();  // read first: a change while we look is not missed
    ODMOE_ASSIGN_OR_RETURN(Job job, store_->Get(id));
    if (job.version > seen_version) {
      seen_version = job.version;
      if (!on_change(job)) return job;
    }
    if (job.ended()) return job;
    while (changes() == seen_changes) {
      if (options.cancellation != nullptr && options.cancellation->cancelled()) {
        return absl::CancelledError("the watch was given up");
      }
      if (stopping()) return absl::UnavailableError("the job queue shuts down; watch again");
      WaitForChange(seen_changes, kCancellationPoll);
    }
  }
}

absl::StatusOr<Job> LocalJobQueue::Cancel(absl::string_view id) {
  ODMOE_ASSIGN_OR_RETURN(Job job, store_->RequestCancel(id));
  StopHere(id, JobWish::kCancel);
  WorkArrived();  // to clean up may need a worker
  return AwaitStop(std::move(job), [](const Job& now) { return now.ended(); });
}

absl::StatusOr<Job> LocalJobQueue::Pause(absl::string_view id) {
  ODMOE_ASSIGN_OR_RETURN(Job job, store_->RequestPause(id));
  StopHere(id, JobWish::kPause);
  return AwaitStop(std::move(job), [](const Job& now) { return now.state != JobState::kRunning; });
}

absl::StatusOr<Job> LocalJobQueue::AwaitStop(Job job, bool (*done)(const Job&)) {
  Changed();
  const absl::Time deadline = absl::Now() + kStopPatience;
  while (!done(job) && absl::Now() < deadline && !stopping()) {
    const uint64_t seen_changes = changes();
    ODMOE_ASSIGN_OR_RETURN(job, store_->Get(job.id));
    if (!done(job)) WaitForChange(seen_changes, deadline - absl::Now());
  }
  return job;
}

absl::StatusOr<Job> LocalJobQueue::Resume(absl::string_view id) {
  ODMOE_ASSIGN_OR_RETURN(Job job, store_->Resume(id));
  WorkArrived();
  Changed();
  return job;
}

absl::StatusOr<Job> LocalJobQueue::Retry(absl::string_view id) {
  ODMOE_ASSIGN_OR_RETURN(Job job, store_->Retry(id));
  WorkArrived();
  Changed();
  return job;
}

absl::Status LocalJobQueue::Delete(absl::string_view id) {
  ODMOE_RETURN_IF_ERROR(store_->Delete(id));
  Changed();
  return absl::OkStatus();
}

absl::StatusOr<bool> LocalJobQueue::UsesBelow(const std::string& directory) {
  std::error_code error;
  std::string resolved = std::filesystem::weakly_canonical(directory, error).string();
  if (error) return PosixError(error.value(), "resolve", directory);
  while (resolved.size() > 1 && resolved.back() == '/') resolved.pop_back();
  return store_->UsesBelow(resolved);
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
    if (job.cancelled) {
      cancellation.Cancel();
    } else if (stopping_) {
      cancellation.CancelAndKeepWork();
    }
  }
  absl::Status outcome = RunSteps(job, cancellation);
  if (absl::IsCancelled(outcome) && !cancellation.cancelled()) {
    outcome = absl::InternalError(
        absl::StrCat("the work stopped unasked: ", outcome.message()));  // or it would run for ever
  }
  {
    absl::MutexLock lock(&mutex_);
    running_.erase(job.job.id);
  }
  Settle(job.job.id, outcome, cancellation.keeps_work());
  Changed();
}

absl::Status LocalJobQueue::RunSteps(const ClaimedJob& job, const Cancellation& cancellation) {
  const std::string& id = job.job.id;
  for (size_t step = 0; step < job.job.steps.size(); ++step) {
    if (job.job.steps[step].state == StepState::kDone) continue;
    ODMOE_RETURN_IF_ERROR(WriteDown([&] { return store_->StartStep(id, step); }));
    Changed();
    ODMOE_ASSIGN_OR_RETURN(
        const StepResult result,
        runner_->RunStep(job, step, cancellation, ProgressWriter(id, step)));
    ODMOE_RETURN_IF_ERROR(WriteDown([&] { return store_->FinishStep(id, step, result); }));
    Changed();
    if (cancellation.cancelled()) return absl::CancelledError("asked to stop");
  }
  return absl::OkStatus();
}

std::function<void(const JobProgress&)> LocalJobQueue::ProgressWriter(const std::string& id,
                                                                      size_t step) {
  struct Written {
    absl::Time at = absl::InfinitePast();
    int phase = 0;
    bool end = false;  // of that phase
  };
  return [this, id, step, last = Written()](const JobProgress& progress) mutable {
    const absl::Time now = absl::Now();
    const bool begins = progress.phase_number != last.phase;
    if (begins) last.end = false;
    // A phase's end is written whenever it comes, or the job would seem to have ended early; but
    // once, however often a conversion that exceeds its plan reports it.
    const bool ends = progress.done_bytes >= progress.total_bytes && !last.end;
    if (!begins && !ends && now - last.at < progress_interval_) return;
    last = {now, progress.phase_number, last.end || ends};
    // What cannot be written now is written with the next progress, or with the end.
    if (store_->SetProgress(id, step, progress).ok()) Changed();
  };
}

// What is not written down about a job is lost or seems to go on for as long as this process lives,
// so a failed write (a full disk) is tried again.
absl::Status LocalJobQueue::WriteDown(const std::function<absl::Status()>& write) {
  while (true) {
    const absl::Status written = write();
    if (written.ok() || absl::IsFailedPrecondition(written)) return written;
    if (stopping()) return written;  // the next queue finds the job without a living owner
    WaitForChange(changes(), kForeignPoll);
  }
}

void LocalJobQueue::Settle(absl::string_view id, const absl::Status& outcome, bool kept_work) {
  WriteDown([&] { return store_->Finish(id, outcome, kept_work); }).IgnoreError();
  // A failure leaves a job too many until the next one ends.
  store_->Prune(retention_).IgnoreError();
  // Put back to the queue, where it was resumed before it had stopped, or is to be cleaned up.
  WorkArrived();
}

// Whatever other processes do to the database is noticed here, and made to look like a change of
// our own.
void LocalJobQueue::FollowOtherProcesses() {
  int64_t seen = 0;
  absl::Time next_orphans = absl::InfinitePast();
  absl::Time next_prune = absl::Now() + kPruneInterval;
  while (!stopping()) {
    if (absl::StatusOr<int64_t> foreign = store_->ForeignChanges();
        foreign.ok() && *foreign != seen) {
      seen = *foreign;
      Changed();
    }
    // Each time, not only after a change: a request may have come before its job was in running_.
    if (const auto wishes = store_->Wishes(); wishes.ok()) {
      for (const auto& [id, wish] : *wishes) StopHere(id, wish);
    }
    if (absl::Now() >= next_orphans) {
      // An error is tried again a second later.
      if (absl::StatusOr<bool> found = store_->RequeueOrphans(); found.ok() && *found) Changed();
      next_orphans = absl::Now() + kOrphanPoll;
    }
    if (absl::Now() >= next_prune) {
      store_->Prune(retention_).IgnoreError();
      next_prune = absl::Now() + kPruneInterval;
    }
    if (absl::StatusOr<bool> queued = store_->HasQueued(); queued.ok() && *queued) WorkArrived();
    absl::MutexLock lock(&mutex_);
    if (!stopping_) mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kForeignPoll);
  }
}

void LocalJobQueue::StopHere(absl::string_view id, JobWish wish) {
  absl::MutexLock lock(&mutex_);
  const auto found = running_.find(std::string(id));
  if (found == running_.end() || found->second->cancelled()) return;
  if (wish == JobWish::kPause) {
    found->second->CancelAndKeepWork();
  } else {
    found->second->Cancel();
  }
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

absl::StatusOr<std::unique_ptr<HostedJobQueue>> OpenLocalJobQueue(
    const LocalJobQueueOptions& options, ConversionFunctions functions) {
  if (options.workers < 0 || options.workers > kMaxWorkers) {
    return absl::InvalidArgumentError(
        absl::StrCat("workers ", options.workers, " is not between 0 and ", kMaxWorkers));
  }
  ODMOE_ASSIGN_OR_RETURN(PathRoots roots, PathRoots::Create(options.roots));
  if (options.retention.jobs < 0 || options.retention.age < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("how many jobs to keep, and how long, cannot be negative");
  }
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<JobStore> store, JobStore::Open(options.database_path));
  ODMOE_RETURN_IF_ERROR(store->Prune(options.retention).status());
  return std::make_unique<LocalJobQueue>(
      std::move(store),
      std::make_unique<ConversionRunner>(std::move(roots), std::move(functions)), options);
}

}  // namespace odmoe
