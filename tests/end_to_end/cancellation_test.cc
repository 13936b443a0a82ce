// Ctrl-C, and calls that are cancelled: work stops and nothing is left behind.
#include <signal.h>

#include <filesystem>
#include <string>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/deployment.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

// More tokens than any test waits for.
constexpr char kEndless[] = "900";

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

std::unique_ptr<Subprocess> StartEndlessGeneration(const std::string& model,
                                                   const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = {"generate", model,    "-p", "Dear",        "-n",
                                        kEndless,   "--temp", "0",  "--ignore-eos"};
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
  auto client = StartEndlessGeneration("tiny-kimi", {"--endpoint", endpoint});
  ASSERT_NE(client, nullptr);
  client->Signal(SIGINT);
  const auto exit = client->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 130) << client->err();
  nlohmann::json stats = WaitUntilIdle(endpoint);
  EXPECT_EQ(stats["requests"], 1);
  EXPECT_LT(stats["completion_tokens"].get<int>(), 900);
}

TEST(CancellationTest, KilledClientStopsTheServicesWork) {
  Deployment deployment("100%");
  deployment.StartStore();
  deployment.StartInference();
  const std::string endpoint = deployment.inference().endpoint;
  auto client = StartEndlessGeneration("tiny-kimi", {"--endpoint", endpoint});
  ASSERT_NE(client, nullptr);
  client->Kill();
  nlohmann::json stats = WaitUntilIdle(endpoint);
  EXPECT_EQ(stats["requests"], 1);
  EXPECT_LT(stats["completion_tokens"].get<int>(), 900);
}

TEST(CancellationTest, InterruptEndsAGenerationInThisProcess) {
  auto client = StartEndlessGeneration(TinyKimi(), {});
  ASSERT_NE(client, nullptr);
  client->Signal(SIGINT);
  const auto exit = client->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 130) << client->err();
  EXPECT_THAT(client->err(), ::testing::StartsWith("odmoe: "));
}

TEST(CancellationTest, InterruptedConversionLeavesNothing) {
  const TemporaryDirectory directory;
  const std::string model = directory / "model";
  auto convert = StartOdmoe({"convert", TinyKimiCheckpoint(), "-o", model, "--outtype", "f32"});
  ASSERT_NE(convert, nullptr);
  const auto line = convert->WaitForLine("split", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  convert->Signal(SIGINT);
  const auto exit = convert->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 130) << convert->err();
  EXPECT_FALSE(std::filesystem::exists(model + "/experts/registry.json"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path())) {
    EXPECT_NE(entry.path().extension(), ".partial") << entry.path();
  }
}

}  // namespace
}  // namespace odmoe
