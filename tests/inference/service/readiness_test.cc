// What health checks and new callers see as a model comes, goes, and the service drains.
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_language_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/fake/alphabet_model.h"
#include "tests/inference/fake/inference_server.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ReadinessTest, IsALoadedModelAndOpenAdmission) {
  InferenceServer server;
  std::vector<bool> reports;
  server.service().ObserveReadiness([&](bool ready) { reports.push_back(ready); });
  EXPECT_THAT(reports, ElementsAre(false));
  ASSERT_TRUE(server.service().LoadModel(server.PathOf("alphabet"), 0).ok());
  EXPECT_THAT(reports, ElementsAre(false, true));
  ASSERT_TRUE(UnloadModel(server.endpoint(), "").ok());
  EXPECT_THAT(reports, ElementsAre(false, true, false));
  ASSERT_TRUE(server.service().LoadModel(server.PathOf("other"), 0).ok());
  server.service().StopAdmission();
  EXPECT_THAT(reports, ElementsAre(false, true, false, true, false));
  server.service().ObserveReadiness(nullptr);
}

TEST(ReadinessTest, OnceAdmissionHasStoppedNewWorkIsUnavailable) {
  InferenceServer server;
  ASSERT_TRUE(server.service().LoadModel(server.PathOf("alphabet"), 0).ok());
  server.service().StopAdmission();
  const auto model = ConnectLanguageModel(server.endpoint(), "");
  GenerateRequest request;
  request.prompt.text = "a";
  const auto summary = (*model)->Generate(request, {}, [](const TokenEvent&) { return true; });
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr("shutting down"));
  ScoreRequest score;
  score.prompt.text = "abc";
  EXPECT_EQ((*model)->Score(score, {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(LoadModel(server.endpoint(), server.PathOf("alphabet"), 0).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE((*model)->Tokenize("a", {}).ok());
}

TEST(ReadinessTest, DrainingLetsAStreamUnderWayEnd) {
  absl::Notification reached, go_on;
  InferenceServer server({.open_model = [&](const std::string&, int32_t)
                              -> absl::StatusOr<std::unique_ptr<LanguageModel>> {
    auto model = std::make_unique<AlphabetModel>("alphabet");
    model->before_token = [&](int32_t drawn, const CallOptions&) {
      if (drawn == 1) {
        reached.Notify();
        go_on.WaitForNotification();
      }
      return absl::OkStatus();
    };
    return model;
  }});
  ASSERT_TRUE(server.service().LoadModel(server.PathOf("alphabet"), 0).ok());
  const auto model = ConnectLanguageModel(server.endpoint(), "");
  std::thread caller([&] {
    GenerateRequest request;
    request.prompt.text = "a";
    request.max_tokens = 6;
    request.sampling.temperature = 0.0f;
    std::string text;
    const auto summary = (*model)->Generate(request, {}, [&](const TokenEvent& event) {
      text += event.text;
      return true;
    });
    EXPECT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(text, "bcdefg");
  });
  reached.WaitForNotification();
  server.service().StopAdmission();
  std::thread shutdown([&] { server.server().Shutdown(absl::Now() + absl::Seconds(60)); });
  go_on.Notify();
  caller.join();
  shutdown.join();
}

}  // namespace
}  // namespace odmoe
