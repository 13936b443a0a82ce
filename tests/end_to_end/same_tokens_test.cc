// The same greedy tokens, whatever carries the experts and however few of them fit.
#include <signal.h>

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/deployment.h"
#include "tests/end_to_end/http_post.h"
#include "tests/end_to_end/programs.h"

namespace odmoe {
namespace {

constexpr char kPrompt[] = "prompt-short";

// Generates with these flags added, and expects the reference's 64 tokens.
nlohmann::json ExpectReferenceTokens(const std::string& model,
                                     const std::vector<std::string>& flags) {
  const nlohmann::json reference = Reference(kPrompt);
  std::vector<std::string> arguments = {"generate", model,    "-p", reference["text"], "-n", "64",
                                        "--temp",   "0", "--json"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  nlohmann::json result = OdmoeJson(arguments);
  EXPECT_EQ(result["tokens"], reference["greedy"]);
  EXPECT_EQ(result["text"], reference["greedy_text"]);
  return result;
}

struct InProcess {
  const char* name;
  std::vector<std::string> flags;

  friend void PrintTo(const InProcess& configuration, std::ostream* out) {
    *out << configuration.name;
  }
};

class SameTokensInProcessTest : public ::testing::TestWithParam<InProcess> {};

TEST_P(SameTokensInProcessTest, AreTheReferences) {
  ExpectReferenceTokens(TinyKimi(), GetParam().flags);
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, SameTokensInProcessTest,
    ::testing::Values(
        InProcess{"EverythingResident", {"--expert-budget", "100%"}},
        InProcess{"QuarterBudget", {"--expert-budget", "25%"}},
        InProcess{"QuarterBudgetMapped", {"--expert-budget", "25%", "--source", "mmap"}},
        InProcess{"QuarterBudgetDirect", {"--expert-budget", "25%", "--source", "direct"}},
        InProcess{"QuarterBudgetNoPrefetch", {"--expert-budget", "25%", "--no-prefetch"}},
        InProcess{"EverythingResidentNoPrefetch", {"--expert-budget", "100%", "--no-prefetch"}},
        InProcess{"OneThread", {"--expert-budget", "25%", "--threads", "1"}},
        InProcess{"TwoThreads", {"--expert-budget", "25%", "--threads", "2"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SameTokensTest, FromSharedMemory) {
  Deployment deployment("25%");
  deployment.StartStore();
  nlohmann::json result =
      ExpectReferenceTokens(TinyKimi(), {"--expert-store", deployment.store().endpoint});
  EXPECT_GT(result["experts"]["misses"].get<int64_t>(), 0);
}

TEST(SameTokensTest, FromARemoteStore) {
  Deployment deployment("25%");
  deployment.StartStore();
  nlohmann::json result = ExpectReferenceTokens(
      TinyKimi(),
      {"--remote-expert-store", deployment.store().endpoint, "--expert-budget", "25%"});
  EXPECT_GT(result["experts"]["misses"].get<int64_t>(), 0);
}

// Log-probabilities of a text, to the last bit.
nlohmann::json Score(const std::string& model, const std::vector<std::string>& flags) {
  const TemporaryDirectory directory;
  const std::string text = Reference(kPrompt)["greedy_text"];
  WriteFileOrDie(directory / "text", text.substr(0, 120));
  std::vector<std::string> arguments = {"score", model, "-f", directory / "text", "--json"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return OdmoeJson(arguments)["logprobs"];
}

TEST(SameTokensTest, WithTheHelpOfASecondHost) {
  const TemporaryDirectory directory;
  const Service far = StartService(
      "odmoe-expert-storage", {"--listen", "127.0.0.1:0", "--model", TinyKimi(), "--socket-dir",
                               directory.path(), "--expert-budget", "50%", "--compute-threads",
                               "2"});
  const nlohmann::json logprobs = Score(TinyKimi(), {});
  ASSERT_GT(logprobs.size(), 20u);
  for (const std::string mode : {"fetch", "execute", "auto"}) {
    const std::vector<std::string> flags = {"--remote-experts", far.endpoint, "--remote-mode",
                                            mode, "--expert-budget", "25%"};
    nlohmann::json result = ExpectReferenceTokens(TinyKimi(), flags);
    const bool executed = result["experts"]["executed"].get<int64_t>() > 0;
    EXPECT_EQ(executed, mode != "fetch") << result["experts"];
    if (mode == "execute") EXPECT_EQ(result["experts"]["misses"], 0);
    EXPECT_EQ(Score(TinyKimi(), flags), logprobs) << mode;
  }
}

TEST(SameTokensTest, FromALocalStoreOfARemoteOnesExperts) {
  const TemporaryDirectory directory;
  Deployment deployment("25%");
  deployment.StartStore();
  const Service local = StartService(
      "odmoe-expert-storage", {"--listen", "127.0.0.1:0", "--remote", deployment.store().endpoint,
                               "--socket-dir", directory.path(), "--expert-budget", "25%"});
  nlohmann::json result =
      ExpectReferenceTokens(TinyKimi(), {"--expert-store", local.endpoint});
  EXPECT_GT(result["experts"]["misses"].get<int64_t>(), 0);
}

TEST(SameTokensTest, FromAGgufFileInPlace) {
  const TemporaryDirectory directory;
  const std::string whole = directory / "tiny.gguf";
  ASSERT_EQ(Odmoe({"convert", TinyKimiCheckpoint(), "-o", whole, "--outtype", "f32", "--quiet"})
                .exit.code, 0);
  ASSERT_EQ(Odmoe({"convert", TinyKimiCheckpoint(), "-o", directory / "parts.gguf", "--outtype",
                   "f32", "--split-max-size", "10M", "--quiet"}).exit.code, 0);
  std::string shard;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    const std::string name = entry.path().filename();
    if (absl::StartsWith(name, "parts-00002-of-")) shard = entry.path();
  }
  ASSERT_FALSE(shard.empty());
  const nlohmann::json logprobs = Score(TinyKimi(), {});
  for (const std::string& model : {whole, shard}) {
    for (const std::string budget : {"25%", "100%"}) {
      ExpectReferenceTokens(model, {"--expert-budget", budget});
    }
    EXPECT_EQ(Score(model, {"--expert-budget", "25%"}), logprobs) << model;
  }
  // The services, by the file's name.
  const Service store = StartService(
      "odmoe-expert-storage", {"--listen", "127.0.0.1:0", "--model", whole, "--socket-dir",
                               directory.path(), "--expert-budget", "25%"});
  const Service inference =
      StartService("odmoe-inference", {"--listen", "127.0.0.1:0", "--root", directory.path(),
                                       "--expert-store", store.endpoint, "--model", whole});
  ExpectReferenceTokens("tiny", {"--endpoint", inference.endpoint});
}

TEST(SameTokensTest, ThroughTheInferenceService) {
  Deployment deployment("25%");
  deployment.StartStore();
  deployment.StartInference();
  nlohmann::json result =
      ExpectReferenceTokens("tiny-kimi", {"--endpoint", deployment.inference().endpoint});
  EXPECT_GT(result["experts"]["misses"].get<int64_t>(), 0);
  EXPECT_GT(result["peak_rss_bytes"].get<int64_t>(), 1 << 20);
}

TEST(SameTokensTest, FromAModelLoadedAfterTheServicesStarted) {
  const std::string root = TinyKimi().substr(0, TinyKimi().rfind('/'));
  const TemporaryDirectory directory;
  const Service store =
      StartService("odmoe-expert-storage", {"--listen", "127.0.0.1:0", "--root", root,
                                            "--socket-dir", directory.path()});
  const Service inference = StartService(
      "odmoe-inference",
      {"--listen", "127.0.0.1:0", "--root", root, "--expert-store", store.endpoint});
  nlohmann::json loaded =
      OdmoeJson({"load", TinyKimi(), "--expert-store", store.endpoint, "--expert-budget", "25%",
                 "--endpoint", inference.endpoint, "--json"});
  EXPECT_EQ(loaded["model"]["name"], "tiny-kimi");
  EXPECT_LE(loaded["store"]["slot_count"].get<int>(),
            loaded["store"]["expert_count"].get<int>() / 4);
  ExpectReferenceTokens("tiny-kimi", {"--endpoint", inference.endpoint});
  // Out of both again, the store's memory too, and back with another budget.
  const nlohmann::json unloaded = OdmoeJson({"unload", "tiny-kimi", "--endpoint",
                                             inference.endpoint, "--expert-store",
                                             store.endpoint, "--json"});
  EXPECT_EQ(unloaded["unloaded"].size(), 2u);
  loaded = OdmoeJson({"load", TinyKimi(), "--expert-store", store.endpoint, "--expert-budget",
                      "50%", "--endpoint", inference.endpoint, "--json"});
  EXPECT_GT(loaded["store"]["slot_count"].get<int>(),
            loaded["store"]["expert_count"].get<int>() / 4);
}

// The text of a reply of /v1/completions, streamed or not.
std::string CompletionText(const std::string& body, bool stream) {
  if (!stream) return nlohmann::json::parse(body)["choices"][0]["text"];
  std::string text;
  for (absl::string_view line : absl::StrSplit(body, '\n')) {
    line = absl::StripSuffix(line, "\r");
    if (!absl::ConsumePrefix(&line, "data: ") || line == "[DONE]") continue;
    const nlohmann::json event = nlohmann::json::parse(line);
    for (const auto& choice : event["choices"]) {
      text += choice["text"].get<std::string>();
    }
  }
  return text;
}

void ExpectReferenceCompletion(const std::string& url) {
  const nlohmann::json reference = Reference(kPrompt);
  for (const bool stream : {false, true}) {
    const nlohmann::json request = {{"model", "tiny-kimi"},
                                    {"prompt", reference["text"]},
                                    {"max_tokens", 64},
                                    {"temperature", 0},
                                    {"stream", stream}};
    const auto reply = HttpPost(url, "/v1/completions", request.dump());
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_EQ(reply->status, 200) << reply->body;
    EXPECT_EQ(CompletionText(reply->body, stream), reference["greedy_text"]) << reply->body;
  }
}

TEST(SameTokensTest, ThroughTheGateway) {
  Deployment deployment("25%");
  deployment.StartStore();
  deployment.StartInference();
  deployment.StartGateway();
  ExpectReferenceCompletion(deployment.gateway().endpoint);
}

TEST(SameTokensTest, ThroughServe) {
  const std::unique_ptr<Subprocess> serve =
      StartOdmoe({"serve", TinyKimi(), "--listen", "127.0.0.1:0", "--expert-budget", "25%"});
  ASSERT_NE(serve, nullptr);
  const auto line = serve->WaitForLine("listening on ", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  ExpectReferenceCompletion(line->substr(line->rfind(' ') + 1));
  serve->Signal(SIGTERM);
  const auto exit = serve->Wait(kPatience);
  ASSERT_TRUE(exit.ok()) << exit.status();
  EXPECT_EQ(exit->code, 0) << serve->err();
}

}  // namespace
}  // namespace odmoe
