// Generate and Score under way: cancellation, overload, a store that goes away, counters.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_language_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/fake/alphabet_model.h"
#include "tests/inference/fake/inference_server.h"
#include "tests/support/metrics_text.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const absl::Duration kPatience = absl::Seconds(60);

GenerateRequest Request(int32_t max_tokens) {
  GenerateRequest request;
  request.prompt.text = "a";
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0.0f;
  return request;
}

bool GoOn(const TokenEvent&) { return true; }

// Waits as a model at work does, until the caller gives up.
absl::Status AwaitCancellation(const CallOptions& call) {
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    if (call.cancellation->cancelled()) return absl::OkStatus();
  }
  return absl::InternalError("was not cancelled");
}

class GenerateTest : public testing::Test {
 protected:
  // Serves a model that `prepare` has changed.
  void Serve(std::function<void(AlphabetModel&)> prepare, int max_calls = 8) {
    server_.emplace(InferenceServer::Options{
        .open_model = [this, prepare](const std::string&, int32_t)
            -> absl::StatusOr<std::unique_ptr<LanguageModel>> {
          auto model = std::make_unique<AlphabetModel>("alphabet");
          prepare(*model);
          alphabet_ = model.get();
          return model;
        },
        .max_calls = max_calls});
    ASSERT_TRUE(server_->service().LoadModel(server_->PathOf("alphabet"), 0).ok());
    model_ = *ConnectLanguageModel(server_->endpoint(), "alphabet");
  }

  InferenceStats Stats() {
    const auto stats = GetInferenceStats(server_->endpoint());
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.ok() ? *stats : InferenceStats();
  }

  // Asks until `count` requests have ended; gives the counters then.
  InferenceStats AwaitEnded(int64_t count) {
    const absl::Time end = absl::Now() + kPatience;
    InferenceStats stats = Stats();
    while (stats.requests < count && absl::Now() < end) stats = Stats();
    EXPECT_EQ(stats.requests, count);
    return stats;
  }

  std::optional<InferenceServer> server_;
  AlphabetModel* alphabet_ = nullptr;
  std::unique_ptr<LanguageModel> model_;
};

TEST_F(GenerateTest, CancelledCallDrawsAtMostOneTokenMore) {
  Serve([](AlphabetModel& model) {
    model.before_token = [](int32_t drawn, const CallOptions& call) {
      return drawn == 3 ? AwaitCancellation(call) : absl::OkStatus();
    };
  });
  Cancellation cancellation;
  int seen = 0;
  const auto summary = model_->Generate(Request(20), {.cancellation = &cancellation},
                                        [&](const TokenEvent&) {
                                          if (++seen == 3) cancellation.Cancel();
                                          return true;
                                        });
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled);
  AwaitEnded(1);
  EXPECT_LE(alphabet_->tokens_drawn(), 4);
}

TEST_F(GenerateTest, CancellationReachesAModelThatIsAtWork) {
  absl::Notification working;
  Serve([&](AlphabetModel& model) {
    model.before_token = [&](int32_t drawn, const CallOptions& call) {
      if (drawn == 0) working.Notify();
      return AwaitCancellation(call);
    };
  });
  Cancellation cancellation;
  std::thread caller([&] {
    EXPECT_EQ(model_->Generate(Request(20), {.cancellation = &cancellation}, GoOn).status().code(),
              absl::StatusCode::kCancelled);
  });
  working.WaitForNotification();
  cancellation.Cancel();
  caller.join();
  AwaitEnded(1);
  EXPECT_LE(alphabet_->tokens_drawn(), 1);
}

TEST_F(GenerateTest, CallbackThatEndsItEndsTheServicesWork) {
  Serve([](AlphabetModel& model) {
    model.before_token = [](int32_t drawn, const CallOptions& call) {
      return drawn == 2 ? AwaitCancellation(call) : absl::OkStatus();
    };
  });
  int seen = 0;
  const auto summary =
      model_->Generate(Request(20), {}, [&](const TokenEvent&) { return ++seen < 2; });
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->finish_reason, FinishReason::kCancelled);
  AwaitEnded(1);
  EXPECT_LE(alphabet_->tokens_drawn(), 3);
}

TEST_F(GenerateTest, DeadlineReachesTheModel) {
  Serve([](AlphabetModel& model) {
    model.before_token = [](int32_t, const CallOptions& call) {
      EXPECT_LT(call.deadline, absl::Now() + absl::Hours(1));
      return AwaitCancellation(call);
    };
  });
  const auto summary =
      model_->Generate(Request(20), {.deadline = absl::Now() + absl::Milliseconds(200)}, GoOn);
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kDeadlineExceeded);
  AwaitEnded(1);
}

TEST_F(GenerateTest, CountersAddUp) {
  Serve([](AlphabetModel&) {});
  ASSERT_TRUE(model_->Generate(Request(5), {}, GoOn).ok());
  ScoreRequest score;
  score.prompt.text = "abcd";
  ASSERT_TRUE(model_->Score(score, {}).ok());
  GenerateRequest bad = Request(5);
  bad.max_tokens = 65;
  EXPECT_FALSE(model_->Generate(bad, {}, GoOn).ok());
  const InferenceStats stats = AwaitEnded(3);
  EXPECT_EQ(stats.requests_running, 0);
  EXPECT_EQ(stats.requests_waiting, 0);
  EXPECT_EQ(stats.prompt_tokens, 1 + 4);
  EXPECT_EQ(stats.completion_tokens, 5);
  EXPECT_EQ(stats.experts.hits, 3u + 7u);
  EXPECT_EQ(stats.experts.misses, 1u + 2u);
  EXPECT_EQ(stats.experts.predicted_right, 2u);
  EXPECT_GT(stats.peak_rss_bytes, 0u);
  EXPECT_GT(stats.uptime, absl::ZeroDuration());
}

TEST_F(GenerateTest, MetricsTellRequestsByTheirEndAndHowLongTheyTook) {
  Serve([](AlphabetModel&) {}, /*max_calls=*/1);
  ASSERT_TRUE(model_->Generate(Request(5), {}, GoOn).ok());
  AwaitEnded(1);
  ScoreRequest score;
  score.prompt.text = "abcd";
  ASSERT_TRUE(model_->Score(score, {}).ok());
  AwaitEnded(2);
  GenerateRequest bad = Request(5);
  bad.max_tokens = 65;
  EXPECT_FALSE(model_->Generate(bad, {}, GoOn).ok());
  AwaitEnded(3);
  const std::string text = server_->service().MetricsText();
  ExpectMetricsText(text);
  for (const char* line :
       {"model_info{model=\"alphabet\",architecture=\"alphabet\",digest=\"0123abcd\"} 1",
        "num_requests_running 0", "num_requests_waiting 0",
        "requests_total{method=\"generate\",code=\"OK\"} 1",
        "requests_total{method=\"generate\",code=\"INVALID_ARGUMENT\"} 1",
        "requests_total{method=\"score\",code=\"OK\"} 1", "prompt_tokens_total 5",
        "generation_tokens_total 5", "expert_hits_total 10", "expert_misses_total 3",
        "experts_predicted_right_total 2", "time_to_first_token_seconds_count 1",
        "inter_token_latency_seconds_count 4", "e2e_request_latency_seconds_count 2",
        "request_queue_time_seconds_count 2", "request_prefill_time_seconds_count 2",
        "request_decode_time_seconds_count 1",
        "request_expert_stall_seconds_bucket{le=\"+Inf\"} 2"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\nodmoe_inference_", line, "\n")));
  }
  EXPECT_THAT(text, HasSubstr("\nprocess_open_fds "));
  ASSERT_TRUE(UnloadModel(server_->endpoint(), "").ok());
  EXPECT_THAT(server_->service().MetricsText(), Not(HasSubstr("model_info{")));
}

TEST_F(GenerateTest, GaugesTellWaitingFromRunning) {
  absl::Notification queued, let_start, started, let_end;
  Serve([&](AlphabetModel& model) {
    model.on_queue = [&] {
      queued.Notify();
      let_start.WaitForNotification();
      return absl::OkStatus();
    };
    model.before_token = [&](int32_t drawn, const CallOptions&) {
      if (drawn == 0) {
        started.Notify();
        let_end.WaitForNotification();
      }
      return absl::OkStatus();
    };
  });
  std::thread caller([&] { EXPECT_TRUE(model_->Generate(Request(2), {}, GoOn).ok()); });
  queued.WaitForNotification();
  EXPECT_EQ(Stats().requests_waiting, 1);
  EXPECT_EQ(Stats().requests_running, 0);
  let_start.Notify();
  started.WaitForNotification();
  EXPECT_EQ(Stats().requests_waiting, 0);
  EXPECT_EQ(Stats().requests_running, 1);
  let_end.Notify();
  caller.join();
  AwaitEnded(1);
}

TEST_F(GenerateTest, CallTooManyIsRefusedAtOnceAndOthersAreServed) {
  absl::Mutex mutex;
  int working = 0;
  absl::Notification let_end;
  Serve(
      [&](AlphabetModel& model) {
        model.before_token = [&](int32_t, const CallOptions&) {
          {
            absl::MutexLock lock(&mutex);
            ++working;
          }
          let_end.WaitForNotification();
          return absl::OkStatus();
        };
      },
      /*max_calls=*/2);
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i) {
    callers.emplace_back([&] { EXPECT_TRUE(model_->Generate(Request(1), {}, GoOn).ok()); });
  }
  {
    absl::MutexLock lock(&mutex);
    const auto both = [&] { return working == 2; };
    mutex.Await(absl::Condition(&both));
  }
  EXPECT_EQ(model_->Generate(Request(1), {}, GoOn).status().code(),
            absl::StatusCode::kResourceExhausted);
  ScoreRequest score;
  score.prompt.text = "abc";
  EXPECT_EQ(model_->Score(score, {}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(model_->Tokenize("abc", {}).ok());
  EXPECT_EQ(Stats().requests_running, 2);
  EXPECT_THAT(server_->service().MetricsText(),
              HasSubstr("requests_total{method=\"score\",code=\"RESOURCE_EXHAUSTED\"} 1\n"));
  let_end.Notify();
  for (std::thread& caller : callers) caller.join();
  AwaitEnded(2);
  EXPECT_TRUE(model_->Generate(Request(1), {}, GoOn).ok());
}

TEST_F(GenerateTest, StoreThatGoesAwayFailsTheRequestAndTheNextIsServed) {
  std::atomic<bool> away = true;
  Serve([&](AlphabetModel& model) {
    model.before_token = [&](int32_t drawn, const CallOptions&) {
      if (away && drawn == 2) return absl::UnavailableError("the expert store went away");
      return absl::OkStatus();
    };
  });
  int seen = 0;
  const auto summary = model_->Generate(Request(5), {}, [&](const TokenEvent&) {
    ++seen;
    return true;
  });
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr("the expert store went away"));
  EXPECT_EQ(seen, 2);
  away = false;
  EXPECT_TRUE(model_->Generate(Request(5), {}, GoOn).ok());
}

TEST_F(GenerateTest, FullQueueOfTheModelIsPassedOn) {
  Serve([](AlphabetModel& model) {
    model.on_queue = [] { return absl::ResourceExhaustedError("64 requests wait already"); };
  });
  const auto summary = model_->Generate(Request(5), {}, GoOn);
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr("64 requests"));
}

TEST_F(GenerateTest, ServiceThatIsGoneIsUnavailableByItsEndpoint) {
  Serve([](AlphabetModel&) {});
  const std::string endpoint = server_->endpoint();
  server_.reset();
  const auto summary = model_->Generate(Request(5), {}, GoOn);
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr(endpoint));
  EXPECT_EQ(model_->Info().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace odmoe
