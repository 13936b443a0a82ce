// Which model directories are served, and how a model comes and goes.
#include <filesystem>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_language_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/fake/alphabet_model.h"
#include "tests/inference/fake/inference_server.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ModelLoadingTest : public testing::Test {
 protected:
  absl::StatusOr<ModelInfo> Load(const std::string& path, int32_t context_length = 0) {
    return LoadModel(server_.endpoint(), path, context_length);
  }
  absl::StatusCode LoadCode(const std::string& path) { return Load(path).status().code(); }

  InferenceServer server_;
};

TEST_F(ModelLoadingTest, DirectoryBelowTheRootIsLoaded) {
  const auto info = Load(server_.PathOf("alphabet"));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name, "alphabet");
  EXPECT_EQ(info->context_length, 64);
}

TEST_F(ModelLoadingTest, NameIsThatOfTheResolvedDirectory) {
  EXPECT_EQ(Load(server_.PathOf("other/../alphabet/"))->name, "alphabet");
}

TEST_F(ModelLoadingTest, ContextLengthIsPassedOn) {
  EXPECT_EQ(Load(server_.PathOf("alphabet"), 128)->context_length, 128);
}

TEST_F(ModelLoadingTest, PathsOutsideTheRootAreDenied) {
  const std::string outside = server_.directory() / "secret";
  fs::create_directories(outside);
  fs::create_directory_symlink(outside, server_.PathOf("link"));
  for (const std::string& path :
       {outside, std::string("/"), std::string("/etc"), server_.PathOf("../secret"),
        server_.PathOf("link"), server_.directory() / "root2", server_.directory() / "none"}) {
    EXPECT_EQ(LoadCode(path), absl::StatusCode::kPermissionDenied) << path;
  }
}

TEST_F(ModelLoadingTest, LinkWithinTheRootIsFollowed) {
  fs::create_directory_symlink(server_.PathOf("alphabet"), server_.PathOf("latest"));
  EXPECT_EQ(Load(server_.PathOf("latest"))->name, "alphabet");
}

TEST_F(ModelLoadingTest, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(LoadCode(server_.PathOf("none")), absl::StatusCode::kNotFound);
  WriteFileOrDie(server_.PathOf("file"), "x");
  EXPECT_EQ(LoadCode(server_.PathOf("file/below")), absl::StatusCode::kNotFound);
}

TEST_F(ModelLoadingTest, LoadingAgainChangesNothing) {
  ASSERT_TRUE(Load(server_.PathOf("alphabet"), 96).ok());
  EXPECT_EQ(Load(server_.PathOf("alphabet"), 96)->context_length, 96);
  EXPECT_EQ(Load(server_.PathOf("alphabet"))->context_length, 96);
}

TEST_F(ModelLoadingTest, AnotherModelMustBeUnloadedFirst) {
  ASSERT_TRUE(Load(server_.PathOf("alphabet")).ok());
  const auto other = Load(server_.PathOf("other"));
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("'alphabet'"));
  EXPECT_EQ(Load(server_.PathOf("alphabet"), 77).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(UnloadModel(server_.endpoint(), "alphabet").ok());
  EXPECT_EQ(Load(server_.PathOf("other"))->name, "other");
}

TEST_F(ModelLoadingTest, WithoutAModelCallsSayNoneIsLoaded) {
  const auto model = ConnectLanguageModel(server_.endpoint(), "");
  const absl::StatusCode none = absl::StatusCode::kFailedPrecondition;
  GenerateRequest generate;
  generate.prompt.text = "abc";
  ScoreRequest score;
  score.prompt.text = "abc";
  EXPECT_EQ((*model)->Info().status().code(), none);
  EXPECT_EQ((*model)->Tokenize("x", {}).status().code(), none);
  EXPECT_EQ((*model)->Detokenize({1}).status().code(), none);
  EXPECT_EQ(
      (*model)->Generate(generate, {}, [](const TokenEvent&) { return true; }).status().code(),
      none);
  EXPECT_EQ((*model)->Score(score, {}).status().code(), none);
  EXPECT_EQ(UnloadModel(server_.endpoint(), "").code(), none);
  EXPECT_TRUE(GetInferenceStats(server_.endpoint()).ok());
}

TEST(ModelLoadingFailureTest, FactorysErrorIsTheAnswerAndNothingIsLoaded) {
  absl::Status answer = absl::DataLossError("experts/registry.json: expected '{'");
  InferenceServer server({.open_model = [&](const std::string& path, int32_t)
                              -> absl::StatusOr<std::unique_ptr<LanguageModel>> {
    if (!answer.ok()) return answer;
    return std::make_unique<AlphabetModel>("alphabet");
  }});
  const auto refused = LoadModel(server.endpoint(), server.PathOf("alphabet"), 0);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("registry.json"));
  answer = absl::OkStatus();
  EXPECT_TRUE(LoadModel(server.endpoint(), server.PathOf("alphabet"), 0).ok());
}

TEST(ModelLoadingRaceTest, SecondChangeMeanwhileIsToldToTryAgain) {
  absl::Notification opening, go_on;
  InferenceServer server({.open_model = [&](const std::string& path, int32_t)
                              -> absl::StatusOr<std::unique_ptr<LanguageModel>> {
    opening.Notify();
    go_on.WaitForNotification();
    return std::make_unique<AlphabetModel>("alphabet");
  }});
  std::thread first([&] {
    EXPECT_TRUE(LoadModel(server.endpoint(), server.PathOf("alphabet"), 0).ok());
  });
  opening.WaitForNotification();
  EXPECT_EQ(LoadModel(server.endpoint(), server.PathOf("other"), 0).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(UnloadModel(server.endpoint(), "").code(), absl::StatusCode::kUnavailable);
  go_on.Notify();
  first.join();
}

TEST(ModelUnloadingTest, WaitsForTheRequestsUnderWayAndRefusesNewOnes) {
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
  ASSERT_TRUE(LoadModel(server.endpoint(), server.PathOf("alphabet"), 0).ok());
  const auto model = ConnectLanguageModel(server.endpoint(), "");
  std::thread generation([&] {
    GenerateRequest request;
    request.prompt.text = "a";
    request.max_tokens = 3;
    request.sampling.temperature = 0.0f;
    const auto summary =
        (*model)->Generate(request, {}, [](const TokenEvent&) { return true; });
    EXPECT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(summary->completion_tokens, 3);
  });
  reached.WaitForNotification();
  absl::Notification unloaded;
  std::thread unloading([&] {
    EXPECT_TRUE(UnloadModel(server.endpoint(), "").ok());
    unloaded.Notify();
  });
  // Once unloading has begun, new calls are refused.
  const absl::Time patience = absl::Now() + absl::Seconds(60);
  while ((*model)->Info().ok()) ASSERT_LT(absl::Now(), patience);
  EXPECT_EQ((*model)->Info().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(unloaded.HasBeenNotified());
  go_on.Notify();
  generation.join();
  unloading.join();
}

}  // namespace
}  // namespace odmoe
