#include "absl/time/clock.h"
#include "services/inference/engine/local_language_model.h"

#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

class LocalLanguageModelTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = TinyKimiDirectory("bf16");
    store_ = std::make_shared<ControlledExpertStore>(directory_);
  }

  LocalModelOptions Options() {
    return {.model_directory = directory_, .experts = store_, .threads = 1};
  }

  std::unique_ptr<LanguageModel> Open(const LocalModelOptions& options) {
    auto model = OpenLocalLanguageModel(options);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  static GenerateRequest Greedy(const ReferenceText& reference, int32_t max_tokens) {
    GenerateRequest request;
    request.prompt.tokens = reference.tokens;
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0.0f;
    return request;
  }

  struct Continuation {
    absl::StatusOr<GenerateSummary> summary = absl::UnknownError("not run");
    std::vector<TokenId> tokens;
    std::string text;
  };
  static Continuation Run(LanguageModel& model, const GenerateRequest& request,
                          const CallOptions& call = {}) {
    Continuation continuation;
    continuation.summary = model.Generate(request, call, [&](const TokenEvent& event) {
      continuation.tokens.push_back(event.token);
      continuation.text += event.text;
      return true;
    });
    if (continuation.summary.ok()) continuation.text += continuation.summary->tail;
    return continuation;
  }

  static std::vector<TokenId> FirstTokens(const ReferenceText& reference, size_t count) {
    return {reference.greedy.begin(), reference.greedy.begin() + static_cast<ptrdiff_t>(count)};
  }

  std::string directory_;
  std::shared_ptr<ControlledExpertStore> store_;
};

TEST_F(LocalLanguageModelTest, DescribesItself) {
  const auto info = Open(Options())->Info();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->name, "tiny-kimi-bf16");
  EXPECT_EQ(info->architecture, "deepseek2");
  EXPECT_EQ(info->layer_count, 6);
  EXPECT_EQ(info->expert_count, 16);
  EXPECT_EQ(info->experts_per_token, 2);
  EXPECT_EQ(info->vocabulary_size, 2048);
  EXPECT_EQ(info->context_length, 1024);
  EXPECT_EQ(info->expert_bytes, store_->catalog().total_bytes());
  EXPECT_EQ(info->digest, store_->catalog().model_digest());
  EXPECT_GT(info->base_bytes, 0u);
}

TEST_F(LocalLanguageModelTest, RefusesOptionsOutOfRange) {
  const auto code = [](const LocalModelOptions& options) {
    return OpenLocalLanguageModel(options).status().code();
  };
  for (const auto& change : std::vector<void (*)(LocalModelOptions&)>{
           [](LocalModelOptions& o) { o.threads = -1; },
           [](LocalModelOptions& o) { o.threads = 100000; },
           [](LocalModelOptions& o) { o.context_length = -1; },
           [](LocalModelOptions& o) { o.max_waiting = -1; },
           [](LocalModelOptions& o) { o.prefill_chunk = 0; },
           [](LocalModelOptions& o) { o.experts = nullptr; }}) {
    LocalModelOptions options = Options();
    change(options);
    EXPECT_EQ(code(options), absl::StatusCode::kInvalidArgument);
  }
  LocalModelOptions options = Options();
  options.model_directory += "/nothing";
  EXPECT_EQ(code(options), absl::StatusCode::kNotFound);
  options = Options();
  options.kv_budget_bytes = 1;
  EXPECT_EQ(code(options), absl::StatusCode::kResourceExhausted);
}

TEST_F(LocalLanguageModelTest, TokenizesAndBack) {
  const auto model = Open(Options());
  const ReferenceText& reference = ReferenceTexts()[2];
  const auto tokens = model->Tokenize(reference.text, {false, false});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(*tokens, reference.tokens);
  const auto text = model->Detokenize(*tokens);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, reference.text);
}

TEST_F(LocalLanguageModelTest, RefusesRequestsThatBreakABound) {
  const auto model = Open(Options());
  const GenerateRequest good = Greedy(ReferenceTexts()[0], 2);
  const auto code = [&](const GenerateRequest& request) {
    return Run(*model, request).summary.status().code();
  };
  EXPECT_EQ(code(good), absl::StatusCode::kOk);
  for (const auto& change : std::vector<void (*)(GenerateRequest&)>{
           [](GenerateRequest& r) { r.prompt.tokens.clear(); },
           [](GenerateRequest& r) { r.prompt.tokens = {2048}; },
           [](GenerateRequest& r) { r.prompt.tokens = {-1}; },
           [](GenerateRequest& r) { r.prompt.tokens.assign(1025, 1); },
           [](GenerateRequest& r) { r.max_tokens = 0; },
           [](GenerateRequest& r) { r.sampling.temperature = std::nanf(""); },
           [](GenerateRequest& r) { r.sampling.top_p = 0.0f; },
           [](GenerateRequest& r) { r.stop.assign(17, "x"); },
           [](GenerateRequest& r) { r.top_logprobs = 21; }}) {
    GenerateRequest bad = good;
    change(bad);
    EXPECT_EQ(code(bad), absl::StatusCode::kInvalidArgument);
  }
  GenerateRequest long_text = good;
  long_text.prompt.tokens.clear();
  for (int i = 0; i < 2000; ++i) long_text.prompt.text += "word ";
  EXPECT_EQ(code(long_text), absl::StatusCode::kInvalidArgument);
}

TEST_F(LocalLanguageModelTest, StopsWhereTheContextEnds) {
  LocalModelOptions options = Options();
  options.context_length = 12;
  const auto model = Open(options);
  EXPECT_EQ(model->Info()->context_length, 12);
  const ReferenceText& reference = ReferenceTexts()[0];  // 7 tokens
  const Continuation continuation = Run(*model, Greedy(reference, 12));
  ASSERT_TRUE(continuation.summary.ok()) << continuation.summary.status();
  EXPECT_EQ(continuation.tokens, FirstTokens(reference, 5));
  EXPECT_EQ(continuation.summary->finish_reason, FinishReason::kLength);
  EXPECT_EQ(continuation.summary->prompt_tokens, 7);
  EXPECT_EQ(continuation.summary->completion_tokens, 5);
}

TEST_F(LocalLanguageModelTest, AStopStringEndsTheTextBeforeIt) {
  const auto model = Open(Options());
  const ReferenceText& reference = ReferenceTexts()[0];
  GenerateRequest request = Greedy(reference, 64);
  request.stop = {" see a little way"};
  const Continuation continuation = Run(*model, request);
  ASSERT_TRUE(continuation.summary.ok()) << continuation.summary.status();
  EXPECT_EQ(continuation.summary->finish_reason, FinishReason::kStop);
  EXPECT_EQ(continuation.text, " I was a-going to");
}

TEST_F(LocalLanguageModelTest, LogitsAreThoseOfScore) {
  LocalModelOptions options = Options();
  options.prefill_chunk = 7;
  const auto model = Open(options);
  const ReferenceText& reference = ReferenceTexts()[3];
  ASSERT_GT(reference.tokens.size(), 10u);
  ScoreRequest score;
  score.prompt.tokens = reference.tokens;
  const auto expected = model->Score(score, {});
  ASSERT_TRUE(expected.ok()) << expected.status();
  int64_t next = 5;
  const auto compare = [&](int64_t position, absl::Span<const float> logits) {
    EXPECT_EQ(position, next++);
    double sum = 0.0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    if (next < static_cast<int64_t>(reference.tokens.size())) {
      EXPECT_NEAR(logits[reference.tokens[next]] - std::log(sum), expected->logprobs[next], 1e-6);
    }
    return absl::OkStatus();
  };
  ASSERT_TRUE(model->Logits(reference.tokens, 5, {}, compare).ok());
  EXPECT_EQ(next, static_cast<int64_t>(reference.tokens.size()));

  const auto ignore = [](int64_t, absl::Span<const float>) { return absl::OkStatus(); };
  const auto code = [&](const std::vector<TokenId>& tokens, int64_t first) {
    return model->Logits(tokens, first, {}, ignore).code();
  };
  EXPECT_EQ(code({}, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, 2), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, -1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1, 1 << 20}, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::vector<TokenId>(5000, 1), 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Logits({1, 2}, 0, {}, [](int64_t, absl::Span<const float>) {
              return absl::AbortedError("enough");
            }).code(),
            absl::StatusCode::kAborted);
}

TEST_F(LocalLanguageModelTest, LogprobsAreThoseOfScore) {
  const auto model = Open(Options());
  const ReferenceText& reference = ReferenceTexts()[0];
  GenerateRequest request = Greedy(reference, 3);
  request.logprobs = true;
  request.top_logprobs = 2;
  std::vector<TokenEvent> events;
  ASSERT_TRUE(model->Generate(request, {}, [&](const TokenEvent& event) {
    events.push_back(event);
    return true;
  }).ok());
  ASSERT_EQ(events.size(), 3u);
  ScoreRequest score;
  score.prompt.tokens = reference.tokens;
  for (const TokenEvent& event : events) score.prompt.tokens.push_back(event.token);
  const auto result = model->Score(score, {});
  ASSERT_TRUE(result.ok()) << result.status();
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_NEAR(events[i].logprob, result->logprobs[reference.tokens.size() + i], 1e-5);
    ASSERT_EQ(events[i].top_logprobs.size(), 2u);
    EXPECT_EQ(events[i].top_logprobs[0].first, events[i].token);
  }
}

TEST_F(LocalLanguageModelTest, AScoreNeedsTwoTokens) {
  const auto model = Open(Options());
  ScoreRequest request;
  request.prompt.tokens = {5};
  EXPECT_EQ(model->Score(request, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LocalLanguageModelTest, ACallbackThatSaysNoEndsTheGeneration) {
  const auto model = Open(Options());
  int events = 0;
  const auto summary = model->Generate(Greedy(ReferenceTexts()[0], 64), {},
                                       [&](const TokenEvent&) { return ++events < 3; });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(events, 3);
  EXPECT_EQ(summary->completion_tokens, 3);
}

TEST_F(LocalLanguageModelTest, StopsWithinATokenOfItsCancellation) {
  const auto model = Open(Options());
  Cancellation cancellation;
  CallOptions call;
  call.cancellation = &cancellation;
  int events = 0;
  const auto summary = model->Generate(Greedy(ReferenceTexts()[0], 64), call,
                                       [&](const TokenEvent&) {
                                         if (++events == 2) cancellation.Cancel();
                                         return true;
                                       });
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(events, 2);
}

TEST_F(LocalLanguageModelTest, APassedDeadlineEndsTheCall) {
  const auto model = Open(Options());
  CallOptions call;
  call.deadline = absl::Now() - absl::Seconds(1);
  const Continuation continuation = Run(*model, Greedy(ReferenceTexts()[0], 4), call);
  EXPECT_EQ(continuation.summary.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(continuation.tokens.empty());
}

TEST_F(LocalLanguageModelTest, AStoreThatGoesAwayEndsTheCallWithoutAWrongToken) {
  const auto model = Open(Options());
  const ReferenceText& reference = ReferenceTexts()[0];
  int acquires = 0;
  store_->on_acquire = [&](absl::Span<const ExpertId>) {
    // Prefill takes five, each token five more: the fourth token's step fails halfway.
    return ++acquires == 18 ? absl::UnavailableError("the store went away") : absl::OkStatus();
  };
  const Continuation failed = Run(*model, Greedy(reference, 64));
  EXPECT_EQ(failed.summary.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(failed.tokens, FirstTokens(reference, failed.tokens.size()));
  EXPECT_EQ(failed.tokens.size(), 3u);
  // The store is back: the model serves again.
  EXPECT_EQ(Run(*model, Greedy(reference, 8)).tokens, FirstTokens(reference, 8));
}

TEST_F(LocalLanguageModelTest, ACorruptExpertIsDataLoss) {
  const auto model = Open(Options());
  store_->on_wait = [](ExpertId) { return absl::DataLossError("checksum mismatch"); };
  EXPECT_EQ(Run(*model, Greedy(ReferenceTexts()[0], 4)).summary.status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(LocalLanguageModelTest, RequestsAtOnceGetTheTokensTheyWouldAlone) {
  LocalModelOptions options = Options();
  options.prefill_chunk = 4;
  options.threads = 2;
  const auto model = Open(options);
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      const ReferenceText& reference = ReferenceTexts()[i % 3];
      GenerateRequest request = Greedy(reference, 12);
      request.ignore_eos = true;
      const Continuation continuation = Run(*model, request);
      EXPECT_TRUE(continuation.summary.ok()) << continuation.summary.status();
      EXPECT_EQ(continuation.tokens, FirstTokens(reference, 12));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LocalLanguageModelTest, RefusesWhenTooManyWait) {
  LocalModelOptions options = Options();
  options.max_waiting = 0;
  // One block of tokens: one request at a time.
  const auto info = Open(Options())->Info();
  const uint64_t block = 64ull * 6 * 80 * sizeof(float);
  options.kv_budget_bytes = block;
  const auto model = Open(options);
  EXPECT_EQ(model->Info()->context_length, 64);
  const auto outer = model->Generate(
      Greedy(ReferenceTexts()[0], 4), {}, [&](const TokenEvent&) {
        EXPECT_EQ(Run(*model, Greedy(ReferenceTexts()[0], 4)).summary.status().code(),
                  absl::StatusCode::kResourceExhausted);
        return true;
      });
  EXPECT_TRUE(outer.ok()) << outer.status();
  EXPECT_TRUE(Run(*model, Greedy(ReferenceTexts()[0], 4)).summary.ok());
}

TEST_F(LocalLanguageModelTest, CountsWhatItsExpertsCost) {
  store_->late = true;
  const auto model = Open(Options());
  const Continuation continuation = Run(*model, Greedy(ReferenceTexts()[0], 5));
  ASSERT_TRUE(continuation.summary.ok());
  const ExpertUse& use = continuation.summary->experts;
  EXPECT_EQ(use.hits, 0u);
  EXPECT_GE(use.misses, 4u * 10);  // four steps of one token, and the prefill
  EXPECT_EQ(use.bytes_read, use.misses * store_->catalog().max_expert_bytes());
  EXPECT_EQ(use.predicted, 4u * 10);
  EXPECT_EQ(use.predicted_of, 4u * 10);
  EXPECT_GT(use.recall(), 0.25);
  EXPECT_GT(continuation.summary->timings.tokens_per_second, 0.0);
}

TEST_F(LocalLanguageModelTest, SampledTokensFollowTheSeed) {
  const auto model = Open(Options());
  GenerateRequest request = Greedy(ReferenceTexts()[0], 16);
  request.sampling.temperature = 1.5f;
  request.sampling.seed = 7;
  const std::vector<TokenId> first = Run(*model, request).tokens;
  EXPECT_EQ(Run(*model, request).tokens, first);
  request.sampling.seed = 8;
  EXPECT_NE(Run(*model, request).tokens, first);
}

}  // namespace
}  // namespace odmoe
