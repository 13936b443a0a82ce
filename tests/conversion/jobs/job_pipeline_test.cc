// Jobs of several steps, priorities, pausing, retrying, forgetting.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class JobPipelineTest : public ::testing::Test {
 protected:
  JobPipelineTest() {
    WriteFileOrDie(folder_ / "a.model", "MODEL a");
    WriteFileOrDie(folder_ / "b.model", "MODEL b");
    Open();
  }

  void Open(JobRetention retention = {}) {
    queue_ = nullptr;
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    options.progress_interval = absl::ZeroDuration();
    options.retention = retention;
    auto queue = OpenLocalJobQueue(options, conversion_.functions());
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
  }

  ConvertSpec Step(const std::string& source, const std::string& destination) {
    return {.source = folder_ / source, .destination = folder_ / destination};
  }
  absl::StatusOr<Job> Submit(std::vector<StepSpec> steps, int32_t priority = 0,
                             const std::string& request_id = "") {
    return queue_->Submit({std::move(steps), priority}, request_id);
  }
  Job WaitForEnd(const std::string& id) {
    const auto job = queue_->Watch(id, {}, [](const Job&) { return true; });
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(Job());
  }
  static std::vector<StepState> States(const Job& job) {
    std::vector<StepState> states;
    for (const JobStep& step : job.steps) states.push_back(step.state);
    return states;
  }

  TemporaryDirectory folder_;
  FakeConversion conversion_;
  std::unique_ptr<JobQueue> queue_;
};

TEST_F(JobPipelineTest, StepsRunInOrderAndReadWhatCameBefore) {
  const auto job = Submit({Step("a.model", "one"), Step("one", "two"), Step("one", "three")});
  ASSERT_TRUE(job.ok()) << job.status();
  const Job ended = WaitForEnd(job->id);
  EXPECT_EQ(ended.state, JobState::kSucceeded) << ended.error;
  EXPECT_THAT(States(ended), ElementsAre(StepState::kDone, StepState::kDone, StepState::kDone));
  for (const char* name : {"one", "two", "three"})
    EXPECT_EQ(ReadFileOrDie(folder_ / name), "MODEL a");
  for (const JobStep& step : ended.steps) {
    EXPECT_EQ(step.result.bytes, 7u);
    EXPECT_GE(step.finished, step.started);
  }
  EXPECT_GE(ended.steps[1].started, ended.steps[0].finished);
}

TEST_F(JobPipelineTest, AFailureSkipsWhatFollowsAndARetryGoesOnThere) {
  conversion_.set_outcome(absl::ResourceExhaustedError("disk full"));
  const auto failing = Submit({Step("a.model", "four"), Step("four", "five")});
  const Job failed = WaitForEnd(failing->id);
  EXPECT_EQ(failed.state, JobState::kFailed);
  EXPECT_EQ(failed.error, "disk full");
  EXPECT_THAT(States(failed), ElementsAre(StepState::kFailed, StepState::kSkipped));
  conversion_.set_outcome(absl::OkStatus());
  EXPECT_EQ(queue_->Retry(failed.id)->error, "");
  const Job ended = WaitForEnd(failed.id);
  EXPECT_EQ(ended.state, JobState::kSucceeded);
  EXPECT_EQ(queue_->Retry(failed.id).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobPipelineTest, ARetryRunsNoStepThatIsDone) {
  // The first step's end is followed by one whose source vanishes while it is held.
  conversion_.Hold();
  const auto job = Submit({Step("b.model", "one"), Step("a.model", "two")});
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  fs::remove(folder_ / "a.model");
  conversion_.Release();
  const Job failed = WaitForEnd(job->id);
  EXPECT_EQ(failed.error_code, absl::StatusCode::kNotFound) << failed.error;
  EXPECT_THAT(States(failed), ElementsAre(StepState::kDone, StepState::kFailed));
  EXPECT_EQ(conversion_.runs(), 1);
  WriteFileOrDie(folder_ / "a.model", "MODEL a");
  ASSERT_TRUE(queue_->Retry(job->id).ok());
  EXPECT_EQ(WaitForEnd(job->id).state, JobState::kSucceeded);
  EXPECT_EQ(conversion_.runs(), 2);  // each step once
}

// What another conversion left goes; what this one left stays, or a job would begin anew each time
// its process dies.
TEST_F(JobPipelineTest, AStepMayReplaceAnotherConversionsWork) {
  ConversionFunctions functions = conversion_.functions();
  absl::Mutex mutex;
  std::vector<std::string> seen;
  functions.plan = [&, plan = functions.plan](const ConvertOptions& options) {
    absl::MutexLock lock(&mutex);
    seen.push_back(absl::StrCat("convert ", options.restart, options.replace_other));
    return plan(options);
  };
  functions.merge = [&](const MergeOptions& options, const Cancellation*,
                        const auto&) -> absl::StatusOr<MergeResult> {
    absl::MutexLock lock(&mutex);
    seen.push_back(absl::StrCat("merge ", options.restart, options.replace_other));
    return MergeResult{.bytes = 5, .digest = "0123456789abcdef"};
  };
  LocalJobQueueOptions options;
  options.database_path = folder_ / "others.sqlite";
  queue_ = *OpenLocalJobQueue(options, functions);
  ConvertSpec convert = Step("a.model", "one");
  convert.restart = true;
  const auto job =
      Submit({convert, MergeSpec{folder_ / "one", folder_ / "two.gguf", true, 0, true}});
  ASSERT_TRUE(job.ok()) << job.status();
  const Job ended = WaitForEnd(job->id);
  EXPECT_EQ(ended.state, JobState::kSucceeded) << ended.error;
  EXPECT_EQ(ended.steps[1].result.digest, "0123456789abcdef");
  EXPECT_THAT(seen, ElementsAre("convert 01", "convert 01", "merge 01"));
}

TEST_F(JobPipelineTest, HigherPrioritiesStartFirst) {
  conversion_.Hold();
  const auto first = Submit({Step("a.model", "first")});
  ASSERT_TRUE(conversion_.WaitForRuns(1));  // the only worker is busy
  const auto low = Submit({Step("a.model", "low")}, -5);
  const auto ordinary = Submit({Step("a.model", "ordinary")});
  const auto ordinary_too = Submit({Step("a.model", "ordinary_too")});
  const auto high = Submit({Step("a.model", "high")}, 10);
  conversion_.Release();
  const Job jobs[] = {WaitForEnd(first->id), WaitForEnd(high->id), WaitForEnd(ordinary->id),
                      WaitForEnd(ordinary_too->id), WaitForEnd(low->id)};
  for (size_t i = 1; i < std::size(jobs); ++i)
    EXPECT_GE(jobs[i].started, jobs[i - 1].finished) << i;
}

TEST_F(JobPipelineTest, OneWriterAPath) {
  conversion_.Hold();
  ASSERT_TRUE(Submit({Step("a.model", "one"), Step("one", "two/deep")}).ok());
  for (const char* taken : {"one", "one/x", "two/deep", "two/deep/x", "two", "a.model"}) {
    EXPECT_EQ(Submit({Step("b.model", taken)}).status().code(), absl::StatusCode::kAborted)
        << taken;
  }
  // A later step's target counts as well.
  EXPECT_EQ(Submit({Step("b.model", "free"), Step("free", "two/deep")}).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(Submit({Step("b.model", "two/other")}).ok());
  conversion_.Release();
}

TEST_F(JobPipelineTest, StepsThatUndoOneAnotherAreRefused) {
  const std::vector<std::vector<StepSpec>> cases = {
      {},
      std::vector<StepSpec>(33, Step("a.model", "x")),
      {Step("a.model", "one"), Step("b.model", "one")},
      {Step("a.model", "one"), Step("b.model", "one/x")},
      {Step("a.model", "one/x"), Step("b.model", "one")},
      {Step("a.model", "a.model")},
      {Step("a.model", "one"), Step("b.model", "a.model")},
  };
  for (const auto& steps : cases) {
    EXPECT_EQ(Submit(steps).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Submit({Step("a.model", "x")}, 1001).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Submit({EvaluateSpec{folder_ / "a.model", folder_ / "b.model"}}).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_THAT(*queue_->List(10), SizeIs(0));
}

TEST_F(JobPipelineTest, APausedJobKeepsItsWorkAndGoesOn) {
  conversion_.Hold();
  const auto job = Submit({Step("a.model", "one"), Step("one", "two")});
  ASSERT_TRUE(conversion_.WaitUntilHeld());
  const Job paused = *queue_->Pause(job->id);
  EXPECT_EQ(paused.state, JobState::kPaused);
  EXPECT_THAT(States(paused), ElementsAre(StepState::kQueued, StepState::kQueued));
  EXPECT_TRUE(fs::exists(folder_ / "one.partial"));
  // Its targets stay its own.
  EXPECT_EQ(Submit({Step("b.model", "one")}).status().code(), absl::StatusCode::kAborted);
  Open();  // it stays paused across a restart
  EXPECT_EQ(queue_->Get(job->id)->state, JobState::kPaused);
  conversion_.Release();
  EXPECT_EQ(queue_->Resume(job->id)->state, JobState::kQueued);
  EXPECT_EQ(WaitForEnd(job->id).state, JobState::kSucceeded);
  EXPECT_EQ(conversion_.resumed_runs(), 1);
  EXPECT_EQ(queue_->Pause(job->id).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(queue_->Resume(job->id).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobPipelineTest, APausedJobThatIsCancelledLeavesNothing) {
  conversion_.Hold();
  const auto job = Submit({Step("a.model", "one")});
  ASSERT_TRUE(conversion_.WaitUntilHeld());
  ASSERT_EQ(queue_->Pause(job->id)->state, JobState::kPaused);
  ASSERT_TRUE(fs::exists(folder_ / "one.partial"));
  EXPECT_EQ(queue_->Cancel(job->id)->state, JobState::kCancelled);
  EXPECT_FALSE(fs::exists(folder_ / "one.partial"));
  EXPECT_FALSE(fs::exists(folder_ / "one"));
}

TEST_F(JobPipelineTest, AJobPausedBeforeItBeganNeverRan) {
  conversion_.Hold();
  ASSERT_TRUE(Submit({Step("a.model", "busy")}).ok());
  ASSERT_TRUE(conversion_.WaitForRuns(1));
  const auto job = Submit({Step("a.model", "one")});
  EXPECT_EQ(queue_->Pause(job->id)->state, JobState::kPaused);
  EXPECT_EQ(queue_->Cancel(job->id)->state, JobState::kCancelled);
  conversion_.Release();
}

TEST_F(JobPipelineTest, AStoppedQueueKeepsTheWork) {
  conversion_.Hold();
  const auto job = Submit({Step("a.model", "one")});
  ASSERT_TRUE(conversion_.WaitUntilHeld());
  queue_ = nullptr;
  EXPECT_TRUE(fs::exists(folder_ / "one.partial"));
  conversion_.Release();
  Open();
  EXPECT_EQ(WaitForEnd(job->id).state, JobState::kSucceeded);
  EXPECT_EQ(conversion_.resumed_runs(), 1);
}

TEST_F(JobPipelineTest, ARetryWaitsForItsTargets) {
  conversion_.set_outcome(absl::DataLossError("broken"));
  const auto failed = Submit({Step("a.model", "one")});
  WaitForEnd(failed->id);
  conversion_.set_outcome(absl::OkStatus());
  conversion_.Hold();
  const auto other = Submit({Step("b.model", "one")});
  EXPECT_EQ(queue_->Retry(failed->id).status().code(), absl::StatusCode::kAborted);
  conversion_.Release();
  WaitForEnd(other->id);
  EXPECT_TRUE(queue_->Retry(failed->id).ok());
  EXPECT_EQ(WaitForEnd(failed->id).state, JobState::kSucceeded);
}

TEST_F(JobPipelineTest, EndedJobsAreForgotten) {
  const auto first = Submit({Step("a.model", "one")});
  WaitForEnd(first->id);
  const auto second = Submit({Step("a.model", "two")});
  WaitForEnd(second->id);
  EXPECT_TRUE(queue_->Delete(second->id).ok());
  EXPECT_EQ(queue_->Delete(second->id).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(fs::exists(folder_ / "two"));
  const auto third = Submit({Step("a.model", "three")});
  WaitForEnd(third->id);
  Open({.jobs = 1});
  const auto kept = *queue_->List(10);
  ASSERT_THAT(kept, SizeIs(1));
  EXPECT_EQ(kept[0].id, third->id);
  Open({.jobs = 5, .age = absl::ZeroDuration()});
  EXPECT_THAT(*queue_->List(10), SizeIs(0));
}

TEST_F(JobPipelineTest, ARequestIdIsOneSpecification) {
  const auto first = Submit({Step("a.model", "one")}, 3, "id");
  WaitForEnd(first->id);
  EXPECT_EQ(Submit({Step("a.model", "one")}, 3, "id")->id, first->id);
  for (const absl::Status& status :
       {Submit({Step("a.model", "one")}, 4, "id").status(),
        Submit({Step("a.model", "one"), Step("one", "two")}, 3, "id").status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), HasSubstr(first->id));
  }
}

}  // namespace
}  // namespace odmoe
