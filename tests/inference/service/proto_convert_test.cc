// Both ends' conversions, one against the other: what goes in at one end comes out at the other.
#include "services/inference/service/proto_convert.h"

#include <cmath>
#include <limits>

#include "clients/cpp/inference_proto.h"
#include "gtest/gtest.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

namespace client = inference_client;

const ModelInfo kModel = [] {
  ModelInfo info;
  info.name = "tiny";
  info.architecture = "deepseek2";
  info.digest = "00ff";
  info.layer_count = 6;
  info.expert_count = 16;
  info.experts_per_token = 2;
  info.vocabulary_size = 2048;
  info.context_length = 1024;
  info.base_bytes = 123456789012;
  info.expert_bytes = 987654321098;
  info.chat_template = "{{ x }}";
  return info;
}();

const ExpertUse kUse = {.hits = 1, .misses = 2, .stall_ms = 3.5, .bytes_read = 4,
                        .predicted = 5, .predicted_right = 6, .predicted_of = 7,
                        .executed = 8, .executed_bytes = 9};

void ExpectUse(const ExpertUse& use) {
  EXPECT_EQ(use.hits, kUse.hits);
  EXPECT_EQ(use.misses, kUse.misses);
  EXPECT_DOUBLE_EQ(use.stall_ms, kUse.stall_ms);
  EXPECT_EQ(use.bytes_read, kUse.bytes_read);
  EXPECT_EQ(use.predicted, kUse.predicted);
  EXPECT_EQ(use.predicted_right, kUse.predicted_right);
  EXPECT_EQ(use.predicted_of, kUse.predicted_of);
  EXPECT_EQ(use.executed, kUse.executed);
  EXPECT_EQ(use.executed_bytes, kUse.executed_bytes);
}

TEST(ProtoConvertTest, ModelInfoCrosses) {
  const ModelInfo info = client::FromProto(ToProto(kModel));
  EXPECT_EQ(info.name, kModel.name);
  EXPECT_EQ(info.architecture, kModel.architecture);
  EXPECT_EQ(info.digest, kModel.digest);
  EXPECT_EQ(info.layer_count, kModel.layer_count);
  EXPECT_EQ(info.expert_count, kModel.expert_count);
  EXPECT_EQ(info.experts_per_token, kModel.experts_per_token);
  EXPECT_EQ(info.vocabulary_size, kModel.vocabulary_size);
  EXPECT_EQ(info.context_length, kModel.context_length);
  EXPECT_EQ(info.base_bytes, kModel.base_bytes);
  EXPECT_EQ(info.expert_bytes, kModel.expert_bytes);
  EXPECT_EQ(info.chat_template, kModel.chat_template);
}

TEST(ProtoConvertTest, TextOfAHostileFileIsSentAsUtf8) {
  ModelInfo info = kModel;
  info.name = "a\xFF";
  info.chat_template = "\xC3(";
  const auto message = ToProto(info);
  EXPECT_EQ(message.name(), "a\uFFFD");
  EXPECT_EQ(FirstInvalidUtf8(message.chat_template()), message.chat_template().size());
}

TEST(ProtoConvertTest, GenerateRequestCrosses) {
  GenerateRequest request;
  request.prompt.tokens = {1, 2047};
  request.prompt.tokenize = {.add_special = false, .parse_special = false};
  request.max_tokens = 77;
  request.sampling = {.temperature = 0.0f, .top_k = 40, .top_p = 0.5f, .min_p = 0.25f, .seed = 0};
  request.stop = {"a", "\n\n"};
  request.logprobs = true;
  request.top_logprobs = 20;
  request.ignore_eos = true;
  const auto back = FromProto(client::ToProto(request), kModel);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->prompt.text, "");
  EXPECT_EQ(back->prompt.tokens, request.prompt.tokens);
  EXPECT_FALSE(back->prompt.tokenize.add_special);
  EXPECT_FALSE(back->prompt.tokenize.parse_special);
  EXPECT_EQ(back->max_tokens, 77);
  EXPECT_EQ(back->sampling.temperature, 0.0f);
  EXPECT_EQ(back->sampling.top_k, 40);
  EXPECT_EQ(back->sampling.top_p, 0.5f);
  EXPECT_EQ(back->sampling.min_p, 0.25f);
  EXPECT_EQ(back->sampling.seed, 0u);
  EXPECT_EQ(back->stop, request.stop);
  EXPECT_TRUE(back->logprobs);
  EXPECT_EQ(back->top_logprobs, 20);
  EXPECT_TRUE(back->ignore_eos);
}

TEST(ProtoConvertTest, AbsentSamplingIsTheDefault) {
  inference::v1::GenerateRequest message;
  message.mutable_prompt()->set_text("x");
  message.set_max_tokens(1);
  const auto request = FromProto(message, kModel);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 1.0f);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_FALSE(request->sampling.seed.has_value());
  EXPECT_TRUE(request->prompt.tokenize.add_special);
  EXPECT_TRUE(request->prompt.tokenize.parse_special);
}

TEST(ProtoConvertTest, TokenAndSummaryCross) {
  const TokenEvent event = client::FromProto(ToProto(TokenEvent{
      .token = 5, .text = "é", .logprob = -1.5f, .top_logprobs = {{5, -1.5f}, {6, -2.f}}}));
  EXPECT_EQ(event.token, 5);
  EXPECT_EQ(event.text, "é");
  EXPECT_EQ(event.logprob, -1.5f);
  EXPECT_EQ(event.top_logprobs, (std::vector<std::pair<TokenId, float>>{{5, -1.5f}, {6, -2.f}}));

  for (FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled}) {
    GenerateSummary summary;
    summary.finish_reason = reason;
    summary.tail = "t";
    summary.prompt_tokens = 3;
    summary.completion_tokens = 4;
    summary.timings = {.queue_ms = 0.001, .prefill_ms = 1234.5, .decode_ms = 99999.25,
                       .tokens_per_second = 12.5};
    summary.experts = kUse;
    const auto back = client::FromProto(ToProto(summary));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->finish_reason, reason);
    EXPECT_EQ(back->tail, "t");
    EXPECT_EQ(back->prompt_tokens, 3);
    EXPECT_EQ(back->completion_tokens, 4);
    EXPECT_NEAR(back->timings.queue_ms, 0.001, 1e-6);
    EXPECT_NEAR(back->timings.prefill_ms, 1234.5, 1e-6);
    EXPECT_NEAR(back->timings.decode_ms, 99999.25, 1e-6);
    EXPECT_EQ(back->timings.tokens_per_second, 12.5);
    ExpectUse(back->experts);
  }
}

TEST(ProtoConvertTest, ScoreCrosses) {
  ScoreResult result;
  result.tokens = {7, 8, 9};
  result.logprobs = {std::numeric_limits<double>::quiet_NaN(), -0.125, -3.0};
  result.perplexity = 4.75;
  result.experts = {{1, {{0, 3}, {1, 2}, {2, 3}}}, {5, {{4, 5}, {4, 6}, {0, 1}}}};
  result.timings.prefill_ms = 2.0;
  result.expert_use = kUse;
  const auto back = client::FromProto(ToProto(result));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->tokens, result.tokens);
  ASSERT_EQ(back->logprobs.size(), 3u);
  EXPECT_TRUE(std::isnan(back->logprobs[0]));
  EXPECT_EQ(back->logprobs[1], -0.125);
  EXPECT_EQ(back->logprobs[2], -3.0);
  EXPECT_EQ(back->perplexity, 4.75);
  EXPECT_EQ(back->experts, result.experts);
  EXPECT_EQ(back->timings.prefill_ms, 2.0);
  ExpectUse(back->expert_use);
}

TEST(ProtoConvertTest, ServiceThatContradictsItselfIsInternal) {
  inference::v1::ScoreResponse score;
  score.add_tokens(1);
  score.add_logprobs(-1.0);
  EXPECT_EQ(client::FromProto(score).status().code(), absl::StatusCode::kInternal);
  inference::v1::GenerateSummary summary;
  EXPECT_EQ(client::FromProto(summary).status().code(), absl::StatusCode::kInternal);
  inference::v1::StatsResponse stats;
  stats.mutable_experts()->set_hits(-1);
  EXPECT_EQ(client::FromProto(stats).experts.hits, 0u);
}

TEST(ProtoConvertTest, TimesThatAreNoneAreZero) {
  GenerateSummary summary;
  summary.timings = {.queue_ms = -5.0,
                     .prefill_ms = std::numeric_limits<double>::quiet_NaN(),
                     .decode_ms = std::numeric_limits<double>::infinity()};
  const auto message = ToProto(summary);
  EXPECT_EQ(message.timings().queue().seconds(), 0);
  EXPECT_EQ(message.timings().prefill().nanos(), 0);
  EXPECT_EQ(message.timings().decode().seconds(), 0);
}

}  // namespace
}  // namespace odmoe
