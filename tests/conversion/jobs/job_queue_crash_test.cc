// What is left of a job when the process that runs it is killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "services/conversion/jobs/local_job_queue.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

class JobQueueCrashTest : public ::testing::Test {
 protected:
  JobQueueCrashTest() { WriteFileOrDie(folder_ / "a.model", "MODEL a"); }

  LocalJobQueueOptions Options() {
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    return options;
  }

  // A process that runs a job, which it submits itself if `submit`.
  std::unique_ptr<Subprocess> StartHanging(bool submit) {
    Subprocess::Options options;
    options.arguments = {ODMOE_HANGING_QUEUE, Options().database_path};
    if (submit) {
      options.arguments.push_back(folder_ / "a.model");
      options.arguments.push_back(folder_ / "a.gguf");
    }
    auto process = Subprocess::Start(options);
    EXPECT_TRUE(process.ok()) << process.status();
    const auto line = (*process)->WaitForLine("running", kPatience);
    EXPECT_TRUE(line.ok()) << line.status();
    return *std::move(process);
  }

  TemporaryDirectory folder_;
  FakeConversion conversion_;
};

TEST_F(JobQueueCrashTest, AKilledProcesssJobIsRunAgain) {
  const auto process = StartHanging(true);
  ASSERT_TRUE(fs::exists(folder_ / "a.gguf.partial"));
  process->Kill();
  const auto queue = *OpenLocalJobQueue(Options(), conversion_.functions());
  const auto jobs = *queue->List(10);
  ASSERT_EQ(jobs.size(), 1u);
  const auto ended = queue->Watch(jobs[0].id, {}, [](const Job&) { return true; });
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->state, JobState::kSucceeded);
  EXPECT_EQ(ReadFileOrDie(folder_ / "a.gguf"), "MODEL a");
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf.partial"));
}

TEST_F(JobQueueCrashTest, AnOpenQueueTakesOverFromAKilledProcess) {
  const auto process = StartHanging(true);
  const auto queue = *OpenLocalJobQueue(Options(), conversion_.functions());
  const std::string id = queue->List(1)->front().id;
  // While its process lives the job is that process's.
  WriteFileOrDie(folder_ / "b.model", "MODEL b");
  const Job own = *queue->Submit(OneStep(folder_ / "b.model", folder_ / "b.gguf"), "");
  EXPECT_TRUE(queue->Watch(own.id, {}, [](const Job&) { return true; })->ended());
  EXPECT_EQ(queue->Get(id)->state, JobState::kRunning);
  process->Kill();
  const auto ended = queue->Watch(id, {}, [](const Job&) { return true; });
  EXPECT_EQ(ended->state, JobState::kSucceeded);
}

TEST_F(JobQueueCrashTest, AJobThatKillsItsProcessesIsGivenUp) {
  StartHanging(true)->Kill();
  for (int death = 2; death <= JobStore::kMaxDeaths; ++death) StartHanging(false)->Kill();
  const auto queue = *OpenLocalJobQueue(Options(), conversion_.functions());
  const Job job = queue->List(1)->front();
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error_code, absl::StatusCode::kAborted);
  EXPECT_THAT(job.error, HasSubstr("given up"));
  EXPECT_EQ(conversion_.runs(), 0);
}

TEST_F(JobQueueCrashTest, ACancelledJobOfAKilledProcessIsCleanedUp) {
  const auto process = StartHanging(true);
  const auto queue = *OpenLocalJobQueue(Options(), conversion_.functions());
  const std::string id = queue->List(1)->front().id;
  process->Signal(SIGSTOP);  // so that it cannot heed the request
  const int64_t before = queue->Get(id)->version;
  Cancellation failed;
  std::thread killer([&] {
    // The request is written once a watch sees the version grow.
    const auto first = [](const Job&) { return false; };
    EXPECT_TRUE(queue->Watch(id, {.after_version = before, .cancellation = &failed}, first).ok());
    process->Kill();
  });
  const auto cancelled = queue->Cancel(id);
  if (!cancelled.ok()) failed.Cancel();
  killer.join();
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  const auto ended = queue->Watch(id, {}, [](const Job&) { return true; });
  EXPECT_EQ(ended->state, JobState::kCancelled);
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf.partial"));
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf"));
}

TEST_F(JobQueueCrashTest, AnOrphanIsCancelledAndCleanedUp) {
  StartHanging(true)->Kill();
  LocalJobQueueOptions idle = Options();
  idle.workers = 0;
  std::string id;
  {
    const auto queue = *OpenLocalJobQueue(idle, conversion_.functions());
    id = queue->List(1)->front().id;
    EXPECT_EQ(queue->Get(id)->state, JobState::kQueued);
    ASSERT_TRUE(queue->Cancel(id).ok());
  }
  ASSERT_TRUE(fs::exists(folder_ / "a.gguf.partial"));
  const auto queue = *OpenLocalJobQueue(Options(), conversion_.functions());
  const auto ended = queue->Watch(id, {}, [](const Job&) { return true; });
  EXPECT_EQ(ended->state, JobState::kCancelled);
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf.partial"));
  EXPECT_FALSE(fs::exists(folder_ / "a.gguf"));
}

}  // namespace
}  // namespace odmoe
