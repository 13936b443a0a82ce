// The store's death during generation, and what its clients see of it.
#include <signal.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/deployment.h"
#include "tests/end_to_end/programs.h"

namespace odmoe {
namespace {

// Nearly all that the model's context holds.
constexpr size_t kLong = 900;

// How the model goes on, as told by a process of its own; at least `bytes` of it.
std::string Continuation(const nlohmann::json& prompt, size_t bytes) {
  // A token is a byte at least, but for a few that show nothing; and no text is of more than kLong.
  return OdmoeJson({"generate", TinyKimi(), "-p", prompt, "-n",
                    absl::StrCat(std::min(2 * bytes + 8, kLong)), "--temp", "0", "--ignore-eos",
                    "--json"})["text"];
}

// A long generation under way: some of its text has come.
std::unique_ptr<Subprocess> StartLongGeneration(const std::string& model,
                                                const nlohmann::json& prompt,
                                                const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = {"generate", model, "-p", prompt, "-n",
                                        absl::StrCat(kLong), "--temp", "0", "--ignore-eos"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  auto process = StartOdmoe(arguments);
  if (process == nullptr) return nullptr;
  const absl::Status started = process->WaitForOutput(8, kPatience);
  EXPECT_TRUE(started.ok()) << started;
  return process;
}

// The client of a long generation amid which the store was killed, ended. On a fast machine a
// generation can be over before the kill arrives: such a one proves nothing, and another is begun.
std::unique_ptr<Subprocess> KillStoreAmid(
    Deployment& deployment, const std::function<std::unique_ptr<Subprocess>()>& start) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    auto client = start();
    if (client == nullptr) return nullptr;
    deployment.store().process->Kill();
    const auto exit = client->Wait(kPatience);
    EXPECT_TRUE(exit.ok()) << exit.status();
    if (!exit.ok()) return nullptr;
    if (exit->code != 0 || exit->signal != 0) return client;
    deployment.StartStore();
  }
  ADD_FAILURE() << "twenty generations were over before the store was killed";
  return nullptr;
}

void ExpectReferenceTokens(const std::string& endpoint) {
  const nlohmann::json reference = Reference("prompt-short");
  nlohmann::json result =
      OdmoeJson({"generate", "tiny-kimi", "--endpoint", endpoint, "-p", reference["text"], "-n",
                 "64", "--temp", "0", "--json"});
  EXPECT_EQ(result["tokens"], reference["greedy"]);
}

TEST(StoreFailureTest, KilledDuringGenerationItFailsTheCallAndServesAgainAfterItsRestart) {
  const nlohmann::json prompt = Reference("prompt-short")["text"];
  Deployment deployment("25%");
  deployment.StartStore();
  deployment.StartInference();
  const auto client = KillStoreAmid(deployment, [&] {
    return StartLongGeneration("tiny-kimi", prompt,
                               {"--endpoint", deployment.inference().endpoint});
  });
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(client->Wait(kPatience)->code, 1) << client->err();
  EXPECT_THAT(client->err(), ::testing::HasSubstr("odmoe: "));
  // What came before the end is right to the last letter.
  std::string shown = client->out();
  const std::string expected = Continuation(prompt, shown.size());
  if (absl::EndsWith(shown, "\n") && !absl::StartsWith(expected, shown)) shown.pop_back();
  EXPECT_FALSE(shown.empty());
  EXPECT_EQ(shown, expected.substr(0, shown.size()));

  // Without a store the service lives on and says what is wrong.
  const ProcessOutput refused =
      Odmoe({"generate", "tiny-kimi", "--endpoint", deployment.inference().endpoint, "-p", "Dear",
             "-n", "4", "--json"});
  EXPECT_EQ(refused.exit.code, 1);
  EXPECT_EQ(nlohmann::json::parse(refused.out)["error"]["code"], "UNAVAILABLE") << refused.out;

  deployment.StartStore();
  ExpectReferenceTokens(deployment.inference().endpoint);
}

TEST(StoreFailureTest, KilledDuringGenerationInTheClientsProcessItFailsCleanly) {
  const nlohmann::json prompt = Reference("prompt-short")["text"];
  Deployment deployment("25%");
  deployment.StartStore();
  const auto client = KillStoreAmid(deployment, [&] {
    return StartLongGeneration(TinyKimi(), prompt,
                               {"--expert-store", deployment.store().endpoint});
  });
  ASSERT_NE(client, nullptr);
  const auto exit = client->Wait(kPatience);
  EXPECT_EQ(exit->code, 1) << client->err();
  EXPECT_EQ(exit->signal, 0);
}

// A second host that computes is killed: its experts are then the local store's to bring.
TEST(StoreFailureTest, ASecondHostKilledDuringGenerationIsDoneWithout) {
  const nlohmann::json prompt = Reference("prompt-short")["text"];
  const TemporaryDirectory directory;
  Deployment local("25%");
  local.StartStore();
  const Service far = StartService(
      "odmoe-expert-storage", {"--listen", "127.0.0.1:0", "--model", TinyKimi(), "--socket-dir",
                               directory.path(), "--compute-threads", "1"});
  const auto client = StartLongGeneration(
      TinyKimi(), prompt,
      {"--expert-store", local.store().endpoint, "--remote-experts", far.endpoint,
       "--remote-mode", "execute"});
  ASSERT_NE(client, nullptr);
  far.process->Kill();
  const auto exit = client->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 0) << client->err();
  std::string shown = client->out();
  const std::string expected = Continuation(prompt, shown.size());
  if (absl::EndsWith(shown, "\n") && !absl::StartsWith(expected, shown)) shown.pop_back();
  EXPECT_EQ(shown, expected.substr(0, shown.size()));
}

// Where it was the only source of experts too, the generation fails and says so.
TEST(StoreFailureTest, ASecondHostKilledThatWasTheOnlySourceFailsTheGeneration) {
  const nlohmann::json prompt = Reference("prompt-short")["text"];
  Deployment far("25%");
  far.StartStore();
  const auto client = KillStoreAmid(far, [&] {
    return StartLongGeneration(TinyKimi(), prompt,
                               {"--remote-experts", far.store().endpoint, "--remote-mode", "fetch",
                                "--expert-budget", "25%"});
  });
  ASSERT_NE(client, nullptr);
  const auto exit = client->Wait(kPatience);
  EXPECT_EQ(exit->code, 1) << client->err();
  EXPECT_EQ(exit->signal, 0);
}

TEST(StoreFailureTest, AClientKilledDuringGenerationLeavesNoPins) {
  const nlohmann::json prompt = Reference("prompt-short")["text"];
  Deployment deployment("25%");
  deployment.StartStore();
  auto client = StartLongGeneration(TinyKimi(), prompt,
                                    {"--expert-store", deployment.store().endpoint});
  ASSERT_NE(client, nullptr);
  client->Kill();
  nlohmann::json store;
  for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;) {
    store =
        OdmoeJson({"stats", "--endpoint", deployment.store().endpoint, "--json"})["services"][0];
    if (store["clients"] == 0 && store["pinned_experts"] == 0) break;
  }
  EXPECT_EQ(store["clients"], 0);
  EXPECT_EQ(store["pinned_experts"], 0);
}

}  // namespace
}  // namespace odmoe
