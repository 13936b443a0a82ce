// A database that a version of odmoe with one step a job wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "services/conversion/jobs/local_job_queue.h"
#include "services/conversion/jobs/sqlite_database.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::SizeIs;

// The layout of version 1, and one job in each state; "F" stands for the folder.
constexpr char kVersion1[] = R"sql(
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request_id TEXT UNIQUE,
    source TEXT NOT NULL, destination TEXT NOT NULL, outtype TEXT NOT NULL,
    source_path TEXT NOT NULL, destination_path TEXT NOT NULL, state INTEGER NOT NULL,
    owner INTEGER, cancel_requested INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1, created_us INTEGER NOT NULL, started_us INTEGER,
    finished_us INTEGER, step TEXT NOT NULL DEFAULT '', step_number INTEGER NOT NULL DEFAULT 0,
    step_count INTEGER NOT NULL DEFAULT 0, done_bytes INTEGER NOT NULL DEFAULT 0,
    total_bytes INTEGER NOT NULL DEFAULT 0, bytes_per_second REAL NOT NULL DEFAULT 0,
    eta_us INTEGER, item TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
    error_code INTEGER NOT NULL DEFAULT 0
  );
  CREATE UNIQUE INDEX one_writer ON jobs(destination_path) WHERE state IN (0, 1);
  CREATE INDEX by_state ON jobs(state, sequence);
  CREATE TABLE owners (id INTEGER PRIMARY KEY AUTOINCREMENT);
  INSERT INTO owners VALUES (7);
  PRAGMA application_id=1868852586;
  PRAGMA user_version=1;
)sql";

class JobMigrationTest : public ::testing::Test {
 protected:
  JobMigrationTest() {
    WriteFileOrDie(folder_ / "a.model", "MODEL a");
    database_ = *SqliteDatabase::Open(folder_ / "jobs.sqlite");
    EXPECT_TRUE(database_->Execute(kVersion1).ok());
  }

  void Add(const std::string& id, int state, const std::string& more_columns = "",
           const std::string& more_values = "") {
    const std::string in = folder_ / "a.model", out = folder_ / (id + ".gguf");
    const std::string sql =
        "INSERT INTO jobs (id, request_id, source, destination, outtype, source_path, "
        "destination_path, state, version, created_us" + more_columns + ") VALUES ('" + id +
        "', 'request-" + id + "', '" + in + "', '" + out + "', 'q8_0', '" + in + "', '" + out +
        "', " + std::to_string(state) + ", 5, 1700000000000000" + more_values + ")";
    EXPECT_TRUE(database_->Execute(sql).ok());
  }

  std::unique_ptr<JobQueue> Open(int workers) {
    database_ = nullptr;
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    options.workers = workers;
    options.retention.age = absl::Hours(24 * 365 * 100);
    auto queue = OpenLocalJobQueue(options, conversion_.functions());
    EXPECT_TRUE(queue.ok()) << queue.status();
    return queue.ok() ? *std::move(queue) : nullptr;
  }

  TemporaryDirectory folder_;
  FakeConversion conversion_;
  std::unique_ptr<SqliteDatabase> database_;
};

TEST_F(JobMigrationTest, JobsKeepWhatIsKnownOfThem) {
  Add("done", 2,
      ", started_us, finished_us, step, step_number, step_count, done_bytes, total_bytes",
      ", 1700000001000000, 1700000002000000, 'split', 2, 2, 10, 10");
  Add("failed", 3, ", finished_us, error, error_code", ", 1700000002000000, 'broken', 15");
  Add("cancelled", 4, ", finished_us", ", 1700000002000000");
  Add("queued", 0);
  const auto queue = Open(0);
  ASSERT_NE(queue, nullptr);
  ASSERT_THAT(*queue->List(10), SizeIs(4));
  const Job done = *queue->Get("done");
  EXPECT_EQ(done.state, JobState::kSucceeded);
  EXPECT_EQ(done.version, 5);
  EXPECT_EQ(done.finished, absl::FromUnixSeconds(1'700'000'002));
  ASSERT_THAT(done.steps, SizeIs(1));
  EXPECT_EQ(done.steps[0].state, StepState::kDone);
  EXPECT_EQ(done.steps[0].progress.phase, "split");
  EXPECT_EQ(std::get<ConvertSpec>(done.spec.steps[0]),
            (ConvertSpec{.source = folder_ / "a.model",
                         .destination = folder_ / "done.gguf",
                         .outtype = "q8_0"}));
  const Job failed = *queue->Get("failed");
  EXPECT_EQ(failed.error, "broken");
  EXPECT_EQ(failed.error_code, absl::StatusCode::kDataLoss);
  EXPECT_EQ(failed.steps[0].state, StepState::kFailed);
  EXPECT_EQ(queue->Get("cancelled")->steps[0].state, StepState::kSkipped);
  EXPECT_EQ(queue->Get("queued")->state, JobState::kQueued);
  // A new job may not take what an old one still has to write.
  EXPECT_EQ(
      queue->Submit(OneStep(folder_ / "a.model", folder_ / "queued.gguf"), "").status().code(),
      absl::StatusCode::kAborted);
  // A request id of before is still known.
  EXPECT_EQ(queue->Submit(OneStep(folder_ / "a.model", folder_ / "x.gguf"), "request-done")
                .status()
                .code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(JobMigrationTest, JobsThatHadNotEndedAreRun) {
  Add("queued", 0);
  Add("running", 1, ", owner, started_us", ", 7, 1700000001000000");
  const auto queue = Open(1);
  ASSERT_NE(queue, nullptr);
  for (const char* id : {"queued", "running"}) {
    const auto ended = queue->Watch(id, {}, [](const Job&) { return true; });
    ASSERT_TRUE(ended.ok()) << ended.status();
    EXPECT_EQ(ended->state, JobState::kSucceeded) << ended->error;
  }
  EXPECT_TRUE(queue->Retry("running").status().code() == absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobMigrationTest, ACancelledOneIsCleanedUp) {
  WriteFileOrDie(folder_ / "running.gguf.partial", "MOD");
  Add("running", 1, ", owner, started_us, cancel_requested", ", 7, 1700000001000000, 1");
  const auto queue = Open(1);
  ASSERT_NE(queue, nullptr);
  EXPECT_EQ(queue->Watch("running", {}, [](const Job&) { return true; })->state,
            JobState::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "running.gguf.partial"));
}

}  // namespace
}  // namespace odmoe
