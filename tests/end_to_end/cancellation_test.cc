// Ctrl-C, and calls that are cancelled: work stops and nothing is left behind.
#include <signal.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/deployment.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// Nearly all that the model's context holds.
constexpr int kLong = 900;
// On a fast machine work can be over before the signal arrives: it proves nothing then, and is
// begun again, this often.
constexpr int kAttempts = 20;

nlohmann::json InferenceStats(const std::string& endpoint) {
  return OdmoeJson({"stats", "--endpoint", endpoint, "--json"})["services"][0];
}

// Waits until the service has nothing to do, and returns its counters.
nlohmann::json WaitUntilIdle(const std::string& endpoint) {
  nlohmann::json stats;
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    stats = InferenceStats(endpoint);
    if (stats["requests_running"] == 0 && stats["requests_waiting"] == 0) break;
  }
  EXPECT_EQ(stats["requests_running"], 0);
  EXPECT_EQ(stats["requests_waiting"], 0);
  return stats;
}

std::unique_ptr<Subprocess> StartLongGeneration(const std::string& model,
                                                   const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = {"generate", model,    "-p", "Dear",        "-n",
                                        absl::StrCat(kLong), "--temp", "0",  "--ignore-eos"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  auto process = StartOdmoe(arguments);
  if (process == nullptr) return nullptr;
  const absl::Status started = process->WaitForOutput(8, kPatience);
  EXPECT_TRUE(started.ok()) << started;
  return process;
}

TEST(CancellationTest, InterruptedClientStopsTheServicesWork) {
  Deployment deployment("100%");
  deployment.StartStore();
  deployment.StartInference();
  const std::string endpoint = deployment.inference().endpoint;
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration("tiny-kimi", {"--endpoint", endpoint});
    ASSERT_NE(client, nullptr);
    client->Signal(SIGINT);
    const auto exit = client->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << client->err();
    nlohmann::json stats = WaitUntilIdle(endpoint);
    EXPECT_EQ(stats["requests"], attempt);
    EXPECT_LT(stats["completion_tokens"].get<int>(), attempt * kLong);
    return;
  }
  FAIL() << "every generation was over before it was interrupted";
}

TEST(CancellationTest, KilledClientStopsTheServicesWork) {
  Deployment deployment("100%");
  deployment.StartStore();
  deployment.StartInference();
  const std::string endpoint = deployment.inference().endpoint;
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration("tiny-kimi", {"--endpoint", endpoint});
    ASSERT_NE(client, nullptr);
    client->Kill();
    nlohmann::json stats = WaitUntilIdle(endpoint);
    EXPECT_EQ(stats["requests"], attempt);
    if (stats["completion_tokens"].get<int>() < attempt * kLong) return;
  }
  FAIL() << "every generation went on to its end";
}

TEST(CancellationTest, InterruptEndsAGenerationInThisProcess) {
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    auto client = StartLongGeneration(TinyKimi(), {});
    ASSERT_NE(client, nullptr);
    client->Signal(SIGINT);
    const auto exit = client->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << client->err();
    EXPECT_THAT(client->err(), ::testing::StartsWith("odmoe: "));
    return;
  }
  FAIL() << "every generation was over before it was interrupted";
}

TEST(CancellationTest, InterruptedConversionLeavesNothing) {
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    const TemporaryDirectory directory;
    const std::string model = directory / "model";
    auto convert = StartOdmoe({"convert", TinyKimiCheckpoint(), "-o", model, "--outtype", "f32"});
    ASSERT_NE(convert, nullptr);
    const auto line = convert->WaitForLine("convert", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    convert->Signal(SIGINT);
    const auto exit = convert->Wait(kPatience);
    ASSERT_TRUE(exit.ok()) << exit.status();
    if (exit->code == 0 && exit->signal == 0) continue;
    EXPECT_EQ(exit->code, 130) << convert->err();
    EXPECT_FALSE(std::filesystem::exists(model + "/experts/registry.json"));
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path())) {
      EXPECT_NE(entry.path().extension(), ".partial") << entry.path();
    }
    return;
  }
  FAIL() << "every conversion was over before it was interrupted";
}

}  // namespace
}  // namespace odmoe
