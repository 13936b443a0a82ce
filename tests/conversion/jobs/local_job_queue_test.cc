#include "services/conversion/jobs/local_job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class LocalJobQueueTest : public ::testing::Test {
 protected:
  LocalJobQueueTest() {
    WriteFileOrDie(folder_ / "a.model", "MODEL of some size");
    WriteFileOrDie(folder_ / "b.model", "MODEL too");
    WriteFileOrDie(folder_ / "junk", "not one");
    Open();
  }

  LocalJobQueueOptions Options() {
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    options.roots = {folder_.path()};
    options.progress_interval = absl::ZeroDuration();
    return options;
  }

  std::unique_ptr<HostedJobQueue> OpenAnother(const LocalJobQueueOptions& options) {
    auto queue = OpenLocalJobQueue(options, conversion_.functions());
    EXPECT_TRUE(queue.ok()) << queue.status();
    return queue.ok() ? *std::move(queue) : nullptr;
  }

  void Open() { queue_ = OpenAnother(Options()); }
  void Close() { queue_ = nullptr; }

  JobSpec Spec(absl::string_view source, absl::string_view destination) {
    return OneStep(folder_ / source, folder_ / destination);
  }

  Job SubmitOrDie(absl::string_view source, absl::string_view destination) {
    absl::StatusOr<Job> job = queue_->Submit(Spec(source, destination), "");
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(Job());
  }

  static Job WaitForEnd(JobQueue& queue, const std::string& id) {
    absl::StatusOr<Job> job = queue.Watch(id, {}, [](const Job&) { return true; });
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(Job());
  }

  TemporaryDirectory folder_;
  FakeConversion conversion_;
  std::unique_ptr<HostedJobQueue> queue_;
};

TEST_F(LocalJobQueueTest, RunsAJobToItsEnd) {
  const Job submitted = SubmitOrDie("a.model", "a.gguf");
  EXPECT_EQ(submitted.state, JobState::kQueued);
  EXPECT_EQ(submitted.spec, Spec("a.model", "a.gguf"));
  const Job ended = WaitForEnd(*queue_, submitted.id);
  EXPECT_EQ(ended.state, JobState::kSucceeded);
  ASSERT_THAT(ended.steps, SizeIs(1));
  const JobStep& step = ended.steps[0];
  EXPECT_EQ(step.state, StepState::kDone);
  EXPECT_EQ(step.progress.phase, "write");
  EXPECT_EQ(step.progress.phase_number, 2);
  EXPECT_EQ(step.progress.done_bytes, step.progress.total_bytes);
  EXPECT_EQ(step.result.bytes, 18u);
  EXPECT_GE(step.started, ended.started);
  EXPECT_GE(step.finished, step.started);
  EXPECT_GE(ended.started, ended.created);
  EXPECT_GE(ended.finished, ended.started);
  EXPECT_EQ(ReadFileOrDie(folder_ / "a.gguf"), "MODEL of some size");
}

TEST_F(LocalJobQueueTest, RefusesBeforeItStarts) {
  EXPECT_EQ(queue_->Submit(Spec("absent", "x"), "").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(queue_->Submit(Spec("junk", "x"), "").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue_->Submit(Spec("a.model", "a.model"), "").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue_->Submit(OneStep(folder_ / "a.model", "/etc/x.gguf"), "").status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(queue_->Submit(OneStep("/etc/passwd", folder_ / "x"), "").status().code(),
            absl::StatusCode::kPermissionDenied);
  JobSpec long_outtype = Spec("a.model", "x");
  std::get<ConvertSpec>(long_outtype.steps[0]).outtype = std::string(1000, 'f');
  EXPECT_EQ(queue_->Submit(long_outtype, "").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue_->Submit(Spec("a.model", "x"), std::string(129, 'r')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(*queue_->List(10), SizeIs(0));
  EXPECT_EQ(conversion_.runs(), 0);
}

TEST_F(LocalJobQueueTest, ErrorsNameThePathAsGiven) {
  fs::create_directory_symlink(folder_.path(), folder_ / "alias");
  const absl::Status status = queue_->Submit(Spec("alias/junk", "x"), "").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_ / "alias/junk"));
}

TEST_F(LocalJobQueueTest, KeepsTheReasonOfAFailure) {
  conversion_.set_outcome(absl::DataLossError("a.model: offset 7: expected 1, got 2"));
  const Job ended = WaitForEnd(*queue_, SubmitOrDie("a.model", "a.gguf").id);
  EXPECT_EQ(ended.state, JobState::kFailed);
  EXPECT_EQ(ended.error_code, absl::StatusCode::kDataLoss);
  EXPECT_EQ(ended.error, "a.model: offset 7: expected 1, got 2");
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf"));
}

TEST_F(LocalJobQueueTest, ListsNewestFirst) {
  const Job first = SubmitOrDie("a.model", "a.gguf");
  const Job second = SubmitOrDie("b.model", "b.gguf");
  const auto jobs = *queue_->List(10);
  ASSERT_THAT(jobs, SizeIs(2));
  EXPECT_EQ(jobs[0].id, second.id);
  EXPECT_EQ(jobs[1].id, first.id);
  EXPECT_THAT(*queue_->List(1), SizeIs(1));
  EXPECT_EQ(queue_->List(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(queue_->Get("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LocalJobQueueTest, RepeatedRequestReturnsTheFirstJob) {
  const Job first = *queue_->Submit(Spec("a.model", "a.gguf"), "r1");
  WaitForEnd(*queue_, first.id);
  fs::remove(folder_ / "a.model");  // what was true at first need not be true now
  const absl::StatusOr<Job> again = queue_->Submit(Spec("a.model", "a.gguf"), "r1");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->id, first.id);
  EXPECT_EQ(again->state, JobState::kSucceeded);
  const absl::Status other = queue_->Submit(Spec("b.model", "a.gguf"), "r1").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.message()), HasSubstr(first.id));
  EXPECT_THAT(*queue_->List(10), SizeIs(1));
}

TEST_F(LocalJobQueueTest, ConcurrentRepeatsMakeOneJob) {
  conversion_.Hold();
  std::vector<std::thread> threads;
  std::vector<std::string> ids(8);
  for (size_t i = 0; i < ids.size(); ++i) {
    threads.emplace_back([&, i] {
      const auto job = queue_->Submit(Spec("a.model", "a.gguf"), "same");
      ids[i] = job.ok() ? job->id : job.status().ToString();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, Each(ids[0]));
  EXPECT_THAT(*queue_->List(10), SizeIs(1));
  conversion_.Release();
}

TEST_F(LocalJobQueueTest, OneJobPerDestination) {
  conversion_.Hold();
  const Job first = SubmitOrDie("a.model", "out");
  for (const char* destination : {"out", "./out", "out/inner.gguf"}) {
    EXPECT_EQ(queue_->Submit(Spec("b.model", destination), "").status().code(),
              absl::StatusCode::kAborted)
        << destination;
  }
  // The first one's source may not be written while it is still to be read.
  EXPECT_EQ(queue_->Submit(Spec("b.model", "a.model"), "").status().code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(queue_->Submit(Spec("b.model", "output"), "").ok());
  conversion_.Release();
  WaitForEnd(*queue_, first.id);
  EXPECT_TRUE(queue_->Submit(Spec("b.model", "out"), "").ok());
}

TEST_F(LocalJobQueueTest, CancelsAQueuedJob) {
  conversion_.Hold();
  const Job running = SubmitOrDie("a.model", "a.gguf");
  const Job queued = SubmitOrDie("b.model", "b.gguf");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  EXPECT_EQ(queue_->Cancel(queued.id)->state, JobState::kCancelled);
  conversion_.Release();
  EXPECT_EQ(WaitForEnd(*queue_, running.id).state, JobState::kSucceeded);
  EXPECT_EQ(queue_->Get(queued.id)->state, JobState::kCancelled);
  EXPECT_EQ(conversion_.runs(), 1);
}

TEST_F(LocalJobQueueTest, CancelsARunningJobAndItsPartialOutput) {
  conversion_.Hold();
  const Job job = SubmitOrDie("a.model", "a.gguf");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  const absl::StatusOr<Job> cancelled = queue_->Cancel(job.id);
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->state, JobState::kCancelled);
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf.partial"));
  EXPECT_EQ(queue_->Cancel(job.id).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(queue_->Cancel("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LocalJobQueueTest, WatchSeesChangesInOrderUntilTheEnd) {
  conversion_.Hold();
  const Job job = SubmitOrDie("a.model", "a.gguf");
  std::vector<Job> seen;
  const absl::StatusOr<Job> last = queue_->Watch(job.id, {}, [&](const Job& change) {
    seen.push_back(change);
    if (change.state == JobState::kRunning) conversion_.Release();
    return true;
  });
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->state, JobState::kSucceeded);
  ASSERT_GE(seen.size(), 2u);
  EXPECT_EQ(seen.back().version, last->version);
  for (size_t i = 1; i < seen.size(); ++i) EXPECT_GT(seen[i].version, seen[i - 1].version);
}

TEST_F(LocalJobQueueTest, WatchResumesAfterAVersion) {
  const Job ended = WaitForEnd(*queue_, SubmitOrDie("a.model", "a.gguf").id);
  int calls = 0;
  const auto count = [&](const Job&) { return ++calls, true; };
  EXPECT_EQ(queue_->Watch(ended.id, {.after_version = ended.version}, count)->version,
            ended.version);
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(queue_->Watch(ended.id, {.after_version = ended.version - 1}, count).ok());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(queue_->Watch(ended.id, {}, count).ok());
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(queue_->Watch("nobody", {}, count).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LocalJobQueueTest, WatchEndsWhenItsCallerHasEnough) {
  conversion_.Hold();
  const Job job = SubmitOrDie("a.model", "a.gguf");
  EXPECT_FALSE(queue_->Watch(job.id, {}, [](const Job&) { return false; })->ended());
  Cancellation cancellation;
  const auto given_up = queue_->Watch(job.id, {.cancellation = &cancellation}, [&](const Job&) {
    cancellation.Cancel();
    return true;
  });
  EXPECT_EQ(given_up.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(LocalJobQueueTest, WritesProgressAtABoundedRate) {
  Close();
  LocalJobQueueOptions options = Options();
  options.progress_interval = absl::Hours(1);
  queue_ = OpenAnother(options);
  conversion_.set_reports(100'000);
  const Job ended = WaitForEnd(*queue_, SubmitOrDie("a.model", "a.gguf").id);
  EXPECT_EQ(ended.state, JobState::kSucceeded);
  // Queued, running, the step's start, the begin and end of two phases, its end, ended.
  EXPECT_LE(ended.version, 9);
}

TEST_F(LocalJobQueueTest, StoppedQueuePutsItsRunningJobBack) {
  conversion_.Hold();
  const Job running = SubmitOrDie("a.model", "a.gguf");
  const Job queued = SubmitOrDie("b.model", "b.gguf");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  Close();
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf"));
  conversion_.Release();
  Open();
  EXPECT_EQ(WaitForEnd(*queue_, running.id).state, JobState::kSucceeded);
  EXPECT_EQ(WaitForEnd(*queue_, queued.id).state, JobState::kSucceeded);
  EXPECT_EQ(conversion_.runs(), 3);
}

TEST_F(LocalJobQueueTest, EndedJobsAreListedAfterARestart) {
  const Job ended = WaitForEnd(*queue_, SubmitOrDie("a.model", "a.gguf").id);
  Close();
  Open();
  const auto jobs = *queue_->List(10);
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].id, ended.id);
  EXPECT_EQ(jobs[0].version, ended.version);
  EXPECT_EQ(jobs[0].finished, ended.finished);
}

TEST_F(LocalJobQueueTest, TwoQueuesShareADatabase) {
  conversion_.Hold();
  const Job job = SubmitOrDie("a.model", "a.gguf");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  FakeConversion other_conversion;
  auto other = *OpenLocalJobQueue(Options(), other_conversion.functions());
  // A job of its own runs to its end while the first one's, being run, is left alone.
  const Job own = *other->Submit(Spec("b.model", "b.gguf"), "");
  EXPECT_EQ(WaitForEnd(*other, own.id).state, JobState::kSucceeded);
  EXPECT_EQ(other->Get(job.id)->state, JobState::kRunning);
  EXPECT_EQ(other_conversion.runs(), 1);
  // A cancel through the other queue reaches the one that runs the job.
  EXPECT_EQ(other->Cancel(job.id)->state, JobState::kCancelled);
  EXPECT_EQ(queue_->Get(job.id)->state, JobState::kCancelled);
}

TEST_F(LocalJobQueueTest, WatchSeesWhatAnotherQueueDoes) {
  LocalJobQueueOptions options = Options();
  options.workers = 0;
  const auto other = OpenAnother(options);
  conversion_.Hold();
  const Job job = *other->Submit(Spec("a.model", "a.gguf"), "");
  const absl::StatusOr<Job> ended = other->Watch(job.id, {}, [&](const Job& change) {
    if (change.state == JobState::kRunning) conversion_.Release();
    return true;
  });
  EXPECT_EQ(ended->state, JobState::kSucceeded);
}

TEST_F(LocalJobQueueTest, AJobWhosePathWasTurnedAsideFails) {
  conversion_.Hold();
  const Job first = SubmitOrDie("a.model", "a.gguf");
  fs::create_directory(folder_ / "sub");
  const Job second = SubmitOrDie("b.model", "sub/b.gguf");
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  fs::remove(folder_ / "sub");
  TemporaryDirectory elsewhere;
  fs::create_directory_symlink(elsewhere.path(), folder_ / "sub");
  conversion_.Release();
  const Job ended = WaitForEnd(*queue_, second.id);
  EXPECT_EQ(ended.state, JobState::kFailed);
  EXPECT_EQ(ended.error_code, absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(fs::is_empty(elsewhere.path()));
}

TEST_F(LocalJobQueueTest, RefusesFilesThatAreNoJobDatabase) {
  LocalJobQueueOptions options = Options();
  options.database_path = folder_ / "text";
  WriteFileOrDie(options.database_path, std::string(8192, 'x'));
  EXPECT_EQ(OpenLocalJobQueue(options, conversion_.functions()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFileOrDie(options.database_path), std::string(8192, 'x'));

  options.database_path = folder_ / "absent/jobs.sqlite";
  EXPECT_EQ(OpenLocalJobQueue(options, conversion_.functions()).status().code(),
            absl::StatusCode::kNotFound);

  options.database_path = folder_ / "other.sqlite";
  ASSERT_TRUE((*SqliteDatabase::Open(options.database_path))->Execute("CREATE TABLE t(x)").ok());
  const absl::Status other = OpenLocalJobQueue(options, conversion_.functions()).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.message()), HasSubstr("another program"));
}

TEST_F(LocalJobQueueTest, RefusesADatabaseOfANewerVersion) {
  Close();
  ASSERT_TRUE(
      (*SqliteDatabase::Open(Options().database_path))->Execute("PRAGMA user_version=7").ok());
  const absl::Status status = OpenLocalJobQueue(Options(), conversion_.functions()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("version 7"));
}

TEST_F(LocalJobQueueTest, ADamagedRowIsAnErrorAndNoCrash) {
  conversion_.Hold();
  const Job job = SubmitOrDie("a.model", "a.gguf");
  ASSERT_TRUE(
      (*SqliteDatabase::Open(Options().database_path))->Execute("UPDATE jobs SET state = 99").ok());
  EXPECT_EQ(queue_->Get(job.id).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(queue_->List(5).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(LocalJobQueueTest, RefusesBadOptions) {
  LocalJobQueueOptions options = Options();
  options.workers = -1;
  EXPECT_EQ(OpenLocalJobQueue(options, conversion_.functions()).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.workers = 65;
  EXPECT_EQ(OpenLocalJobQueue(options, conversion_.functions()).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.workers = 1;
  options.roots = {folder_ / "absent"};
  EXPECT_EQ(OpenLocalJobQueue(options, conversion_.functions()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LocalJobQueueTest, BoundsTheJobsThatWait) {
  Close();
  LocalJobQueueOptions options = Options();
  options.workers = 0;
  queue_ = OpenAnother(options);
  {
    // Filled by hand: a thousand synced commits take long on a slow disk.
    auto database = *SqliteDatabase::Open(options.database_path);
    ASSERT_TRUE(database
                    ->Execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                              "WHERE i < 1000) INSERT INTO jobs (id, state, created_us) "
                              "SELECT 'j' || i, 0, 0 FROM n")
                    .ok());
  }
  EXPECT_EQ(queue_->Submit(Spec("a.model", "a.gguf"), "").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(LocalJobQueueTest, KnowsWhatItsJobsUseHoweverManyCameAfter) {
  conversion_.Hold();
  fs::create_directory(folder_ / "used");
  fs::create_directory_symlink(folder_ / "used", folder_ / "link");
  const Job job = SubmitOrDie("a.model", "link/a.gguf");
  {
    auto database = *SqliteDatabase::Open(Options().database_path);
    ASSERT_TRUE(database
                    ->Execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                              "WHERE i < 2000) INSERT INTO jobs (id, state, created_us) "
                              "SELECT 'j' || i, 5, 0 FROM n")
                    .ok());
  }
  EXPECT_TRUE(*queue_->UsesBelow(folder_ / "used"));
  EXPECT_TRUE(*queue_->UsesBelow(folder_ / "link/"));
  EXPECT_FALSE(*queue_->UsesBelow(folder_ / "use"));
  EXPECT_FALSE(*queue_->UsesBelow(folder_ / "elsewhere"));
  conversion_.Release();
  EXPECT_EQ(WaitForEnd(*queue_, job.id).state, JobState::kSucceeded);
  EXPECT_FALSE(*queue_->UsesBelow(folder_ / "used"));
}

}  // namespace
}  // namespace odmoe
