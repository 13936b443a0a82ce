#include "tests/inference/contract/language_model_contract.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "services/core/base/utf8.h"

namespace odmoe {

using ::testing::ElementsAre;

std::vector<TokenId> LanguageModelContractTest::Output::tokens() const {
  std::vector<TokenId> tokens;
  for (const TokenEvent& event : events) tokens.push_back(event.token);
  return tokens;
}

void LanguageModelContractTest::SetUp() {
  model_ = GetParam().make(keep_);
  ASSERT_NE(model_, nullptr);
}

GenerateRequest LanguageModelContractTest::Request(int32_t max_tokens) {
  GenerateRequest request;
  request.prompt.text = "abc";
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0.0f;
  request.ignore_eos = true;
  return request;
}

absl::StatusOr<LanguageModelContractTest::Output> LanguageModelContractTest::Generate(
    const GenerateRequest& request, const CallOptions& call) {
  Output output;
  auto summary = model_->Generate(request, call, [&](const TokenEvent& event) {
    output.events.push_back(event);
    output.text += event.text;
    return true;
  });
  if (!summary.ok()) return summary.status();
  output.summary = *std::move(summary);
  output.text += output.summary.tail;
  return output;
}

LanguageModelContractTest::Output LanguageModelContractTest::GenerateOrFail(
    const GenerateRequest& request) {
  auto output = Generate(request);
  EXPECT_TRUE(output.ok()) << output.status();
  return output.ok() ? *std::move(output) : Output();
}

TEST_P(LanguageModelContractTest, InfoNamesTheModelAndItsBounds) {
  const auto info = model_->Info();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_FALSE(info->name.empty());
  EXPECT_FALSE(info->architecture.empty());
  EXPECT_GT(info->layer_count, 0);
  EXPECT_GT(info->expert_count, 0);
  EXPECT_GT(info->experts_per_token, 0);
  EXPECT_GT(info->vocabulary_size, 0);
  EXPECT_GE(info->context_length, 64);
  EXPECT_GT(info->base_bytes, 0u);
  EXPECT_GT(info->expert_bytes, 0u);
}

TEST_P(LanguageModelContractTest, DetokenizeUndoesTokenize) {
  for (const std::string text : {"", "abc", "It was a dark night", "caf\u00e9 \u65e5\u672c\n"}) {
    const auto tokens = model_->Tokenize(text, {.add_special = false});
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    const auto back = model_->Detokenize(*tokens);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, text);
  }
}

TEST_P(LanguageModelContractTest, TextThatIsNotUtf8IsInvalid) {
  EXPECT_EQ(model_->Tokenize("ab\xFF", {}).status().code(), absl::StatusCode::kInvalidArgument);
  GenerateRequest request = Request(4);
  request.prompt.text = "ab\xC3";
  EXPECT_EQ(Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
  request = Request(4);
  request.stop = {"\x80"};
  EXPECT_EQ(Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
  ScoreRequest score;
  score.prompt.text = "ab\xED\xA0\x80";
  EXPECT_EQ(model_->Score(score, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(LanguageModelContractTest, UnknownTokensAreInvalid) {
  for (TokenId token : {-1, model_->Info()->vocabulary_size, std::numeric_limits<int32_t>::max()}) {
    EXPECT_EQ(model_->Detokenize({0, token}).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(LanguageModelContractTest, TokensComeInOrderThenTheSummary) {
  const Output output = GenerateOrFail(Request(12));
  EXPECT_EQ(output.events.size(), 12u);
  EXPECT_EQ(output.summary.completion_tokens, 12);
  EXPECT_EQ(output.summary.prompt_tokens,
            static_cast<int32_t>(model_->Tokenize("abc", {})->size()));
  EXPECT_EQ(output.summary.finish_reason, FinishReason::kLength);
  for (const TokenEvent& event : output.events) {
    EXPECT_EQ(FirstInvalidUtf8(event.text), event.text.size());
    EXPECT_EQ(event.logprob, 0.0f) << "not asked for";
    EXPECT_TRUE(event.top_logprobs.empty());
  }
}

TEST_P(LanguageModelContractTest, PromptOfTokensIsItsText) {
  GenerateRequest request = Request(8);
  request.prompt.tokens = *model_->Tokenize(request.prompt.text, {});
  request.prompt.text.clear();
  EXPECT_EQ(GenerateOrFail(request).tokens(), GenerateOrFail(Request(8)).tokens());
}

TEST_P(LanguageModelContractTest, SeedFixesTheTokens) {
  GenerateRequest request = Request(16);
  request.sampling = {.temperature = 2.0f, .top_k = 50, .top_p = 0.98f, .min_p = 0.001f, .seed = 7};
  const std::vector<TokenId> first = GenerateOrFail(request).tokens();
  EXPECT_EQ(GenerateOrFail(request).tokens(), first);
  request.sampling.seed = 8;
  EXPECT_NE(GenerateOrFail(request).tokens(), first);
}

TEST_P(LanguageModelContractTest, LogprobsAreReportedWhereAskedFor) {
  GenerateRequest request = Request(6);
  request.logprobs = true;
  request.top_logprobs = 3;
  const Output output = GenerateOrFail(request);
  ASSERT_EQ(output.events.size(), 6u);
  for (const TokenEvent& event : output.events) {
    ASSERT_EQ(event.top_logprobs.size(), 3u);
    EXPECT_LT(event.logprob, 0.0f);
    EXPECT_EQ(event.top_logprobs[0].first, event.token) << "greedy";
    EXPECT_EQ(event.top_logprobs[0].second, event.logprob);
    EXPECT_GE(event.top_logprobs[0].second, event.top_logprobs[1].second);
    EXPECT_GE(event.top_logprobs[1].second, event.top_logprobs[2].second);
  }
}

TEST_P(LanguageModelContractTest, StopStringEndsTheTextAndIsNotShown) {
  const std::string text = GenerateOrFail(Request(12)).text;
  ASSERT_GE(text.size(), 6u);
  GenerateRequest request = Request(12);
  request.stop = {"never there", text.substr(3, 2)};
  const Output output = GenerateOrFail(request);
  EXPECT_EQ(output.text, text.substr(0, text.find(request.stop[1])));
  EXPECT_EQ(output.summary.finish_reason, FinishReason::kStop);
}

TEST_P(LanguageModelContractTest, ContextBoundsPromptAndContinuationTogether) {
  const int32_t context = model_->Info()->context_length;
  GenerateRequest request = Request(8);
  request.prompt.text.clear();
  request.prompt.tokens.assign(context - 3, 'a');
  const Output output = GenerateOrFail(request);
  EXPECT_EQ(output.events.size(), 3u);
  EXPECT_EQ(output.summary.finish_reason, FinishReason::kLength);
  request.prompt.tokens.assign(context + 1, 'a');
  EXPECT_EQ(Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(LanguageModelContractTest, BrokenBoundsAreInvalid) {
  const std::vector<std::function<void(GenerateRequest&)>> breaks = {
      [](GenerateRequest& r) { r.prompt.text = ""; },
      [](GenerateRequest& r) { r.prompt.text = "", r.prompt.tokens = {-4}; },
      [](GenerateRequest& r) { r.max_tokens = 0; },
      [](GenerateRequest& r) { r.max_tokens = 1 << 30; },
      [](GenerateRequest& r) { r.sampling.temperature = -1.0f; },
      [](GenerateRequest& r) { r.sampling.top_k = -1; },
      [](GenerateRequest& r) { r.sampling.top_p = 0.0f; },
      [](GenerateRequest& r) { r.sampling.min_p = 1.0f; },
      [](GenerateRequest& r) { r.stop = {""}; },
      [](GenerateRequest& r) { r.stop.assign(17, "x"); },
      [](GenerateRequest& r) { r.top_logprobs = 1; },
  };
  for (size_t i = 0; i < breaks.size(); ++i) {
    GenerateRequest request = Request(4);
    breaks[i](request);
    const auto output = Generate(request);
    EXPECT_EQ(output.status().code(), absl::StatusCode::kInvalidArgument) << i << output.status();
  }
}

TEST_P(LanguageModelContractTest, CallbackEndsTheGeneration) {
  int32_t seen = 0;
  const auto summary =
      model_->Generate(Request(50), {}, [&](const TokenEvent&) { return ++seen < 3; });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(seen, 3);
  EXPECT_EQ(summary->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(summary->completion_tokens, 3);
}

TEST_P(LanguageModelContractTest, CancellationEndsTheGeneration) {
  Cancellation cancellation;
  const auto summary = model_->Generate(
      Request(60), {.cancellation = &cancellation}, [&](const TokenEvent&) {
        cancellation.Cancel();
        return true;
      });
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled) << summary.status();
}

TEST_P(LanguageModelContractTest, CallCancelledBeforeItBeginsGivesNothing) {
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(Generate(Request(4), {.cancellation = &cancellation}).status().code(),
            absl::StatusCode::kCancelled);
  ScoreRequest score;
  score.prompt.text = "abc";
  EXPECT_EQ(model_->Score(score, {.cancellation = &cancellation}).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_P(LanguageModelContractTest, DeadlineThatHasPassedIsExceeded) {
  const CallOptions call = {.deadline = absl::Now() - absl::Seconds(1)};
  EXPECT_EQ(Generate(Request(4), call).status().code(), absl::StatusCode::kDeadlineExceeded);
  ScoreRequest score;
  score.prompt.text = "abc";
  EXPECT_EQ(model_->Score(score, call).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(LanguageModelContractTest, ConcurrentCallsSeeTheirOwnTokens) {
  constexpr int kCalls = 4;
  std::vector<GenerateRequest> requests(kCalls, Request(10));
  std::vector<std::vector<TokenId>> alone;
  for (int i = 0; i < kCalls; ++i) {
    requests[i].prompt.text = std::string("prompt ") + static_cast<char>('a' + 5 * i);
    alone.push_back(GenerateOrFail(requests[i]).tokens());
  }
  std::vector<std::vector<TokenId>> together(kCalls);
  std::vector<std::thread> threads;
  for (int i = 0; i < kCalls; ++i) {
    threads.emplace_back([&, i] { together[i] = GenerateOrFail(requests[i]).tokens(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

TEST_P(LanguageModelContractTest, ScoreGivesALogprobForAllButTheFirstToken) {
  ScoreRequest request;
  request.prompt.text = "abcdefg hij";
  const auto score = model_->Score(request, {});
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(score->tokens, *model_->Tokenize(request.prompt.text, {}));
  ASSERT_EQ(score->logprobs.size(), score->tokens.size());
  EXPECT_TRUE(std::isnan(score->logprobs[0]));
  double sum = 0.0;
  for (size_t i = 1; i < score->logprobs.size(); ++i) {
    EXPECT_LT(score->logprobs[i], 0.0);
    sum += score->logprobs[i];
  }
  EXPECT_NEAR(score->perplexity, std::exp(-sum / double(score->logprobs.size() - 1)),
              1e-9 * score->perplexity);
  EXPECT_TRUE(score->experts.empty()) << "not asked for";
}

TEST_P(LanguageModelContractTest, ScoreReportsTheChosenExperts) {
  ScoreRequest request;
  request.prompt.text = "abcdefg";
  request.experts = true;
  const auto score = model_->Score(request, {});
  ASSERT_TRUE(score.ok()) << score.status();
  const auto info = model_->Info();
  EXPECT_FALSE(score->experts.empty());
  for (const auto& [layer, tokens] : score->experts) {
    EXPECT_LT(layer, info->layer_count);
    ASSERT_EQ(tokens.size(), score->tokens.size());
    for (const std::vector<int32_t>& experts : tokens) {
      EXPECT_EQ(experts.size(), size_t(info->experts_per_token));
      EXPECT_TRUE(std::is_sorted(experts.begin(), experts.end()));
      EXPECT_LT(experts.back(), info->expert_count);
    }
  }
}

TEST_P(LanguageModelContractTest, ScoreAgreesWithGeneration) {
  GenerateRequest request = Request(8);
  request.logprobs = true;
  const Output output = GenerateOrFail(request);
  ScoreRequest score_request;
  score_request.prompt.tokens = *model_->Tokenize(request.prompt.text, {});
  const size_t prompt = score_request.prompt.tokens.size();
  for (TokenId token : output.tokens()) score_request.prompt.tokens.push_back(token);
  const auto score = model_->Score(score_request, {});
  ASSERT_TRUE(score.ok()) << score.status();
  for (size_t i = 0; i < output.events.size(); ++i) {
    EXPECT_NEAR(score->logprobs[prompt + i], output.events[i].logprob, 1e-5) << i;
  }
}

TEST_P(LanguageModelContractTest, ScoreOfOneTokenIsInvalid) {
  ScoreRequest request;
  request.prompt.tokens = {'a'};
  EXPECT_EQ(model_->Score(request, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace odmoe
