#include "services/core/codec/job_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace odmoe {
namespace {

namespace v1 = ::odmoe::conversion::v1;
using ::testing::HasSubstr;

JobSpec SomeSpec() {
  ConvertSpec convert;
  convert.source = "/models/a";
  convert.destination = "/models/b";
  convert.outtype = "q8_0";
  convert.pre_tokenizer = "kimi-k2";
  convert.tensor_map = "/models/map.json";
  convert.metadata = {"general.name=Kimi", "/models/more.json"};
  convert.base_model = "/models/base";
  convert.vocab_only = true;
  convert.pad_vocab = 256;
  convert.split_max_bytes = 4'000'000'000;
  convert.concurrency = 3;
  convert.restart = true;
  QuantizeSpec quantize{
      .source = "/models/b", .destination = "/models/q", .types = {"q4_k_m", "q8_0"}};
  quantize.batch = quantize.directories = quantize.pure = quantize.leave_output_tensor = true;
  quantize.allow_requantize = quantize.force_ternary = true;
  quantize.keep_split = quantize.skip_trial = true;
  quantize.output_tensor_type = "q6_K";
  quantize.token_embedding_type = "q5_K";
  quantize.tensor_types = {"attn_.*=q8_0", "down=q6_K"};
  quantize.importance = "/texts/i.gguf";
  quantize.split_max_bytes = 5'000'000'000;
  quantize.concurrency = 2;
  quantize.text = "/texts/c";
  quantize.base_model = "/models/b";
  JobSpec spec;
  spec.steps = {convert, EvaluateSpec{"/models/b", "/texts/c", "/models/d", 256, 60},
                MergeSpec{"/models/b", "/models/c.gguf", false, 2, true},
                VerifySpec{"/models/b", 3}, quantize};
  spec.priority = -7;
  return spec;
}

Job SomeJob() {
  Job job;
  job.id = "0123456789abcdef";
  job.spec = SomeSpec();
  job.state = JobState::kRunning;
  job.steps.resize(5);
  job.steps[0].state = StepState::kDone;
  job.steps[0].progress = {"split", 2, 2, 10, 100, 2.5, absl::Seconds(36), "layer_00_expert_001"};
  job.steps[0].started = absl::FromUnixSeconds(1'700'000'002);
  job.steps[0].finished = absl::FromUnixSeconds(1'700'000'003);
  job.steps[0].result = {12, "abcd", {{"perplexity", 4.5}}};
  job.steps[1].state = StepState::kRunning;
  job.created = absl::FromUnixSeconds(1'700'000'000);
  job.started = absl::FromUnixMicros(1'700'000'001'500'000);
  job.version = 7;
  return job;
}

void ExpectSame(const Job& a, const Job& b) {
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.spec, b.spec);
  EXPECT_EQ(a.state, b.state);
  EXPECT_EQ(a.error, b.error);
  EXPECT_EQ(a.error_code, b.error_code);
  EXPECT_EQ(a.created, b.created);
  EXPECT_EQ(a.started, b.started);
  EXPECT_EQ(a.finished, b.finished);
  EXPECT_EQ(a.version, b.version);
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (size_t i = 0; i < a.steps.size(); ++i) {
    const JobStep &x = a.steps[i], &y = b.steps[i];
    EXPECT_EQ(x.state, y.state);
    EXPECT_EQ(x.progress.phase, y.progress.phase);
    EXPECT_EQ(x.progress.phase_number, y.progress.phase_number);
    EXPECT_EQ(x.progress.phase_count, y.progress.phase_count);
    EXPECT_EQ(x.progress.done_bytes, y.progress.done_bytes);
    EXPECT_EQ(x.progress.total_bytes, y.progress.total_bytes);
    EXPECT_EQ(x.progress.bytes_per_second, y.progress.bytes_per_second);
    EXPECT_EQ(x.progress.eta, y.progress.eta);
    EXPECT_EQ(x.progress.item, y.progress.item);
    EXPECT_EQ(x.started, y.started);
    EXPECT_EQ(x.finished, y.finished);
    EXPECT_EQ(x.result.bytes, y.result.bytes);
    EXPECT_EQ(x.result.digest, y.result.digest);
    EXPECT_EQ(x.result.metrics, y.result.metrics);
  }
}

TEST(JobCodecTest, AJobKeepsEveryField) {
  const absl::StatusOr<Job> again = FromProto(ToProto(SomeJob()));
  ASSERT_TRUE(again.ok()) << again.status();
  ExpectSame(*again, SomeJob());
}

TEST(JobCodecTest, AFailureKeepsItsReason) {
  Job job = SomeJob();
  job.state = JobState::kFailed;
  job.error = "a.gguf: offset 8: expected 3, got 4";
  job.error_code = absl::StatusCode::kDataLoss;
  job.finished = job.started + absl::Seconds(1);
  const v1::Job message = ToProto(job);
  EXPECT_EQ(message.error_code(), 15);  // google.rpc.Code.DATA_LOSS
  ExpectSame(*FromProto(message), job);
}

TEST(JobCodecTest, EveryStateHasItsNumber) {
  const std::pair<JobState, v1::JobState> states[] = {
      {JobState::kQueued, v1::JOB_STATE_QUEUED},       {JobState::kRunning, v1::JOB_STATE_RUNNING},
      {JobState::kSucceeded, v1::JOB_STATE_SUCCEEDED}, {JobState::kFailed, v1::JOB_STATE_FAILED},
      {JobState::kCancelled, v1::JOB_STATE_CANCELLED}, {JobState::kPaused, v1::JOB_STATE_PAUSED}};
  for (const auto& [state, number] : states) {
    Job job = SomeJob();
    job.state = state;
    EXPECT_EQ(ToProto(job).state(), number);
    EXPECT_EQ(FromProto(ToProto(job))->state, state);
  }
}

TEST(JobCodecTest, WhatANewerServiceSaysIsNotGuessed) {
  v1::Job message = ToProto(SomeJob());
  message.set_state(v1::JobState(77));
  EXPECT_EQ(FromProto(message).status().code(), absl::StatusCode::kUnimplemented);
  message = ToProto(SomeJob());
  message.mutable_steps(0)->set_state(v1::StepState(77));
  EXPECT_EQ(FromProto(message).status().code(), absl::StatusCode::kUnimplemented);
  message = ToProto(SomeJob());
  message.mutable_spec()->mutable_steps(0)->clear_work();
  EXPECT_EQ(FromProto(message).status().code(), absl::StatusCode::kUnimplemented);
  message = ToProto(SomeJob());
  message.clear_steps();
  EXPECT_EQ(FromProto(message).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(JobCodecTest, ExtremeValuesStayWithinProtobufsBounds) {
  Job job = SomeJob();
  job.steps[0].progress.total_bytes = std::numeric_limits<uint64_t>::max();
  job.steps[0].progress.eta = absl::InfiniteDuration();
  job.finished = absl::InfiniteFuture();
  const v1::Job message = ToProto(job);
  EXPECT_EQ(message.steps(0).progress().total_bytes(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(message.steps(0).progress().eta().seconds(), 315'576'000'000);  // a Duration's most
  EXPECT_EQ(message.finish_time().seconds(), 253'402'300'799);  // the end of the year 9999
}

TEST(JobCodecTest, TextThatIsNotUtf8IsReplaced) {
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
    job.spec.steps = {ConvertSpec{.source = text}};
    EXPECT_EQ(ToProto(job).spec().steps(0).convert().source_path(), expected);
  }
}

TEST(JobCodecTest, EveryFieldOfASpecIsChecked) {
  const auto expect_refused = [](const std::function<void(v1::JobSpec&)>& spoil,
                                 const std::string& field) {
    v1::JobSpec message = ToProto(SomeSpec());
    ASSERT_TRUE(FromProto(message).ok());
    spoil(message);
    const absl::Status status = FromProto(message).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  };
  const auto convert = [&](const std::function<void(v1::ConvertSpec&)>& spoil,
                           const std::string& field) {
    expect_refused([&](auto& spec) { spoil(*spec.mutable_steps(0)->mutable_convert()); },
                   "spec.steps[0].convert." + field);
  };
  const std::string long_path(4097, 'x');
  expect_refused([](auto& spec) { spec.clear_steps(); }, "spec.steps");
  expect_refused([](auto& spec) { for (int i = 0; i < 28; ++i) *spec.add_steps() = spec.steps(1); },
                 "spec.steps");
  expect_refused([](auto& spec) { spec.mutable_steps(1)->clear_work(); }, "spec.steps[1].work");
  expect_refused([](auto& spec) { spec.set_priority(1001); }, "spec.priority");
  expect_refused([](auto& spec) { spec.set_priority(-1001); }, "spec.priority");
  convert([](auto& c) { c.clear_source_path(); }, "source_path");
  convert([&](auto& c) { c.set_source_path(long_path); }, "source_path");
  convert([](auto& c) { c.clear_destination_path(); }, "destination_path");
  convert([&](auto& c) { c.set_destination_path(long_path); }, "destination_path");
  convert([](auto& c) { c.set_outtype(std::string(33, 'x')); }, "outtype");
  convert([](auto& c) { c.set_pre_tokenizer(std::string(33, 'x')); }, "pre_tokenizer");
  convert([&](auto& c) { c.set_tensor_map_path(long_path); }, "tensor_map_path");
  convert([&](auto& c) { c.set_base_model_path(long_path); }, "base_model_path");
  convert([](auto& c) { c.add_metadata(""); }, "metadata");
  convert([](auto& c) { c.add_metadata(std::string(70'000, 'x')); }, "metadata");
  convert([](auto& c) { for (int i = 0; i < 1000; ++i) c.add_metadata("a=b"); }, "metadata");
  convert([](auto& c) { c.set_pad_vocab(-1); }, "pad_vocab");
  convert([](auto& c) { c.set_split_max_bytes(-1); }, "split_max_bytes");
  convert([](auto& c) { c.set_concurrency(-1); }, "concurrency");
  convert([](auto& c) { c.set_concurrency(1025); }, "concurrency");
  expect_refused([](auto& spec) { spec.mutable_steps(1)->mutable_evaluate()->clear_model_path(); },
                 "spec.steps[1].evaluate.model_path");
  expect_refused([](auto& spec) { spec.mutable_steps(1)->mutable_evaluate()->clear_text_path(); },
                 "spec.steps[1].evaluate.text_path");
  const auto evaluate = [&](auto change, const std::string& field) {
    expect_refused([&](auto& spec) { change(*spec.mutable_steps(1)->mutable_evaluate()); },
                   "spec.steps[1].evaluate." + field);
  };
  evaluate([&](auto& e) { e.set_base_model_path(long_path); }, "base_model_path");
  evaluate([](auto& e) { e.set_chunk_tokens(-1); }, "chunk_tokens");
  evaluate([](auto& e) { e.set_chunk_tokens(1 << 30); }, "chunk_tokens");
  evaluate([](auto& e) { e.set_max_chunks(-1); }, "max_chunks");
  evaluate([](auto& e) { e.set_max_chunks(int64_t{1} << 40); }, "max_chunks");
  expect_refused([](auto& spec) { spec.mutable_steps(2)->mutable_merge()->clear_source_path(); },
                 "spec.steps[2].merge.source_path");
  expect_refused(
      [](auto& spec) { spec.mutable_steps(2)->mutable_merge()->clear_destination_path(); },
      "spec.steps[2].merge.destination_path");
  expect_refused([](auto& spec) { spec.mutable_steps(2)->mutable_merge()->set_concurrency(-1); },
                 "spec.steps[2].merge.concurrency");
  expect_refused([](auto& spec) { spec.mutable_steps(3)->mutable_verify()->clear_source_path(); },
                 "spec.steps[3].verify.source_path");
  expect_refused([](auto& spec) { spec.mutable_steps(3)->mutable_verify()->set_concurrency(-1); },
                 "spec.steps[3].verify.concurrency");
}

TEST(JobCodecTest, AQuantizationOutOfBoundsIsRefusedByItsField) {
  const std::string long_path(4097, 'x'), long_name(33, 'x');
  const auto refused = [](auto change, const std::string& field) {
    v1::JobSpec message = ToProto(SomeSpec());
    change(*message.mutable_steps(4)->mutable_quantize());
    const absl::Status status = FromProto(message).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_NE(status.message().find("spec.steps[4].quantize." + field), absl::string_view::npos)
        << status;
  };
  refused([](auto& q) { q.clear_source_path(); }, "source_path");
  refused([](auto& q) { q.clear_destination_path(); }, "destination_path");
  refused([](auto& q) { q.clear_types(); }, "types");
  refused([](auto& q) { for (int i = 0; i < 64; ++i) q.add_types("f16"); }, "types");
  refused([&](auto& q) { q.add_types(long_name); }, "types");
  refused([&](auto& q) { q.set_output_tensor_type(long_name); }, "output_tensor_type");
  refused([&](auto& q) { q.set_token_embedding_type(long_name); }, "token_embedding_type");
  refused([](auto& q) { q.add_tensor_types(std::string(1101, 'x')); }, "tensor_types");
  refused([](auto& q) { for (int i = 0; i < 1000; ++i) q.add_tensor_types("a=f16"); },
          "tensor_types");
  refused([&](auto& q) { q.set_importance_path(long_path); }, "importance_path");
  refused([&](auto& q) { q.set_text_path(long_path); }, "text_path");
  refused([&](auto& q) { q.set_base_model_path(long_path); }, "base_model_path");
  refused([](auto& q) { q.set_split_max_bytes(-1); }, "split_max_bytes");
  refused([](auto& q) { q.set_concurrency(1025); }, "concurrency");
}

TEST(JobCodecTest, AnEmptyOuttypeIsAuto) {
  v1::JobSpec message = ToProto(SomeSpec());
  message.mutable_steps(0)->mutable_convert()->clear_outtype();
  EXPECT_EQ(std::get<ConvertSpec>(FromProto(message)->steps[0]).outtype, "auto");
}

}  // namespace
}  // namespace odmoe
