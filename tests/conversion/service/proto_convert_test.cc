#include "services/conversion/service/proto_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;
using ::testing::HasSubstr;

Job SomeJob() {
  Job job;
  job.id = "0123456789abcdef";
  job.spec = {"/models/a", "/models/b", "q8_0"};
  job.state = JobState::kRunning;
  job.progress = {"split", 2, 2, 10, 100, 2.5, absl::Seconds(36), "layer_00_expert_001"};
  job.created = absl::FromUnixSeconds(1'700'000'000);
  job.started = absl::FromUnixMicros(1'700'000'001'500'000);
  job.version = 7;
  return job;
}

TEST(ProtoConvertTest, AJobKeepsEveryField) {
  const v1::Job message = ToProto(SomeJob());
  EXPECT_EQ(message.job_id(), "0123456789abcdef");
  EXPECT_EQ(message.spec().convert().source_path(), "/models/a");
  EXPECT_EQ(message.spec().convert().destination_path(), "/models/b");
  EXPECT_EQ(message.spec().convert().outtype(), "q8_0");
  EXPECT_EQ(message.state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(message.progress().step(), "split");
  EXPECT_EQ(message.progress().step_number(), 2);
  EXPECT_EQ(message.progress().step_count(), 2);
  EXPECT_EQ(message.progress().done_bytes(), 10);
  EXPECT_EQ(message.progress().total_bytes(), 100);
  EXPECT_EQ(message.progress().bytes_per_second(), 2.5);
  EXPECT_EQ(message.progress().eta().seconds(), 36);
  EXPECT_EQ(message.progress().item(), "layer_00_expert_001");
  EXPECT_EQ(message.create_time().seconds(), 1'700'000'000);
  EXPECT_EQ(message.start_time().nanos(), 500'000'000);
  EXPECT_FALSE(message.has_finish_time());
  EXPECT_EQ(message.error_code(), 0);
  EXPECT_EQ(message.version(), 7);
}

TEST(ProtoConvertTest, AFailureKeepsItsReason) {
  Job job = SomeJob();
  job.state = JobState::kFailed;
  job.error = "a.gguf: offset 8: expected 3, got 4";
  job.error_code = absl::StatusCode::kDataLoss;
  job.finished = job.started + absl::Seconds(1);
  const v1::Job message = ToProto(job);
  EXPECT_EQ(message.error_code(), 15);  // google.rpc.Code.DATA_LOSS
  EXPECT_EQ(message.error_message(), job.error);
  EXPECT_TRUE(message.has_finish_time());
}

TEST(ProtoConvertTest, EveryStateHasItsNumber) {
  EXPECT_EQ(ToProto(JobState::kQueued), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(ToProto(JobState::kRunning), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(ToProto(JobState::kSucceeded), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ToProto(JobState::kFailed), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ToProto(JobState::kCancelled), v1::JOB_STATE_CANCELLED);
}

TEST(ProtoConvertTest, ExtremeValuesStayWithinProtobufsBounds) {
  Job job = SomeJob();
  job.progress.total_bytes = std::numeric_limits<uint64_t>::max();
  job.progress.eta = absl::InfiniteDuration();
  job.finished = absl::InfiniteFuture();
  const v1::Job message = ToProto(job);
  EXPECT_EQ(message.progress().total_bytes(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(message.progress().eta().seconds(), 315'576'000'000);  // the most a Duration may be
  EXPECT_EQ(message.finish_time().seconds(), 253'402'300'799);     // the end of the year 9999
}

TEST(ProtoConvertTest, TextThatIsNotUtf8IsReplaced) {
  const struct {
    std::string text, expected;
  } cases[] = {
      {"/modèle/日本/😀", "/modèle/日本/😀"},
      {"/a\xff/b", "/a\xEF\xBF\xBD/b"},
      {"cut \xe6\x97", "cut \xEF\xBF\xBD"},
      {"overlong \xc0\xaf", "overlong \xEF\xBF\xBD\xEF\xBF\xBD"},
      {"surrogate \xed\xa0\x80", "surrogate \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"beyond \xf4\x90\x80\x80", "beyond \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
  };
  for (const auto& [text, expected] : cases) {
    Job job = SomeJob();
    job.spec.source = text;
    EXPECT_EQ(ToProto(job).spec().convert().source_path(), expected);
  }
}

TEST(ProtoConvertTest, ASpecIsChecked) {
  v1::JobSpec spec;
  EXPECT_THAT(std::string(FromProto(spec).status().message()), HasSubstr("spec.work"));
  spec.mutable_convert();
  EXPECT_THAT(std::string(FromProto(spec).status().message()), HasSubstr("source_path"));
  spec.mutable_convert()->set_source_path("/a");
  EXPECT_THAT(std::string(FromProto(spec).status().message()), HasSubstr("destination_path"));
  spec.mutable_convert()->set_destination_path("/b");
  ASSERT_TRUE(FromProto(spec).ok());
  EXPECT_EQ(FromProto(spec)->outtype, "auto");
  spec.mutable_convert()->set_outtype(std::string(33, 'x'));
  EXPECT_THAT(std::string(FromProto(spec).status().message()), HasSubstr("outtype"));
  spec.mutable_convert()->set_outtype("f16");
  EXPECT_EQ(FromProto(spec)->outtype, "f16");
  spec.mutable_convert()->set_source_path("/" + std::string(4096, 'x'));
  EXPECT_EQ(FromProto(spec).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ProtoConvertTest, OtherFieldsAreChecked) {
  EXPECT_FALSE(CheckJobId("").ok());
  EXPECT_FALSE(CheckJobId(std::string(65, 'x')).ok());
  EXPECT_TRUE(CheckRequestId("").ok());
  EXPECT_FALSE(CheckRequestId(std::string(129, 'x')).ok());
  EXPECT_EQ(*CheckPageSize(0), 100);
  EXPECT_EQ(*CheckPageSize(1000), 1000);
  EXPECT_FALSE(CheckPageSize(1001).ok());
  EXPECT_FALSE(CheckPageSize(-1).ok());
  v1::WatchJobRequest watch;
  EXPECT_EQ(*CheckAfterVersion(watch), -1);
  watch.set_after_version(0);
  EXPECT_EQ(*CheckAfterVersion(watch), 0);
  watch.set_after_version(-1);
  EXPECT_FALSE(CheckAfterVersion(watch).ok());
}

}  // namespace
}  // namespace odmoe
