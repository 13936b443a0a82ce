// The command against the float64 reference: conversion, tokens, scores, chosen experts, greedy
// text.
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/end_to_end/programs.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class ReferenceTextTest : public ::testing::TestWithParam<const char*> {
 protected:
  ReferenceTextTest() : reference_(Reference(GetParam())) {
    WriteFileOrDie(text_file_, reference_["text"].get<std::string>());
  }

  const nlohmann::json reference_;
  const TemporaryDirectory directory_;
  const std::string text_file_ = directory_ / "text";
};

TEST_P(ReferenceTextTest, TokenizesAsTheReference) {
  nlohmann::json result =
      OdmoeJson({"tokenize", TinyKimi(), "-f", text_file_, "--no-special", "--json"});
  EXPECT_EQ(result["tokens"], reference_["tokens"]);
}

TEST_P(ReferenceTextTest, ScoresAsTheReference) {
  nlohmann::json result =
      OdmoeJson({"score", TinyKimi(), "-f", text_file_, "--experts", "--json"});
  ASSERT_EQ(result["tokens"], reference_["tokens"]);
  ASSERT_EQ(result["logprobs"].size(), reference_["logprobs"].size());
  EXPECT_TRUE(result["logprobs"][0].is_null());
  for (size_t i = 1; i < reference_["logprobs"].size(); ++i) {
    EXPECT_NEAR(result["logprobs"][i].get<double>(), reference_["logprobs"][i].get<double>(), 1e-3)
        << "token " << i;
  }
  const double perplexity = reference_["perplexity"].get<double>();
  EXPECT_NEAR(result["perplexity"].get<double>(), perplexity, 2e-4 * perplexity);
  EXPECT_EQ(result["experts"], reference_["experts"]);
}

INSTANTIATE_TEST_SUITE_P(Texts, ReferenceTextTest,
                         ::testing::Values("passage-one", "passage-two", "prompt-dialogue",
                                           "prompt-short", "prompt-unicode"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[name.find('-')] = '_';
                           return name;
                         });

class ReferencePromptTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ReferencePromptTest, ContinuesGreedilyAsTheReference) {
  const nlohmann::json reference = Reference(GetParam());
  nlohmann::json result =
      OdmoeJson({"generate", TinyKimi(), "-p", reference["text"], "-n", "64", "--temp", "0",
                 "--expert-budget", "25%", "--json"});
  EXPECT_EQ(result["tokens"], reference["greedy"]);
  EXPECT_EQ(result["text"], reference["greedy_text"]);
  EXPECT_EQ(result["prompt_tokens"], reference["tokens"].size());
}

INSTANTIATE_TEST_SUITE_P(Prompts, ReferencePromptTest,
                         ::testing::Values("prompt-dialogue", "prompt-short", "prompt-unicode"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[name.find('-')] = '_';
                           return name;
                         });

TEST(ConvertCommandTest, OneStepAndTwoStepsGiveTheSameFiles) {
  const TemporaryDirectory directory;
  const std::string gguf = directory / "two.gguf";
  const std::string model = directory / "two";
  const ProcessOutput first =
      Odmoe({"convert", TinyKimiCheckpoint(), "-o", gguf, "--outtype", "f32"});
  ASSERT_EQ(first.exit.code, 0) << first.err;
  const ProcessOutput second = Odmoe({"convert", gguf, "-o", model});
  ASSERT_EQ(second.exit.code, 0) << second.err;
  const std::filesystem::path one = TinyKimi();
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(one)) {
    if (!entry.is_regular_file()) continue;
    const auto relative = std::filesystem::relative(entry.path(), one);
    EXPECT_EQ(ReadFileOrDie(entry.path()), ReadFileOrDie(std::filesystem::path(model) / relative))
        << relative;
    ++files;
  }
  EXPECT_GE(files, 5u * 16u);
}

TEST(GenerateCommandTest, ReportsWhatItDidAndWhatItCost) {
  nlohmann::json result =
      OdmoeJson({"generate", TinyKimi(), "-p", "It was a dark night, and", "-n", "16", "--temp",
                 "0", "--expert-budget", "25%", "--json"});
  EXPECT_EQ(result["tokens"].size(), 16u);
  EXPECT_EQ(result["prompt_tokens"], 7);
  EXPECT_GT(result["timings"]["prefill_ms"].get<double>(), 0.0);
  EXPECT_GT(result["timings"]["decode_ms"].get<double>(), 0.0);
  EXPECT_GT(result["timings"]["tokens_per_second"].get<double>(), 0.0);
  nlohmann::json& experts = result["experts"];
  EXPECT_GT(experts["hits"].get<int64_t>(), 0);
  EXPECT_GT(experts["misses"].get<int64_t>(), 0);
  EXPECT_GT(experts["hit_rate"].get<double>(), 0.0);
  EXPECT_LT(experts["hit_rate"].get<double>(), 1.0);
  EXPECT_GE(experts["stall_ms"].get<double>(), 0.0);
  EXPECT_GT(experts["bytes_read"].get<int64_t>(), 0);
  EXPECT_GT(experts["predicted"].get<int64_t>(), 0);
  EXPECT_GT(experts["recall"].get<double>(), 0.0);
  EXPECT_LE(experts["recall"].get<double>(), 1.0);
  EXPECT_GT(result["peak_rss_bytes"].get<int64_t>(), 1 << 20);
}

TEST(GenerateCommandTest, PredictsNothingWithoutPrefetch) {
  nlohmann::json result =
      OdmoeJson({"generate", TinyKimi(), "-p", "Dear", "-n", "4", "--temp", "0",
                 "--expert-budget", "25%", "--no-prefetch", "--json"});
  EXPECT_EQ(result["experts"]["predicted"], 0);
}

TEST(GenerateCommandTest, DrawsTheSameTokensFromTheSameSeed) {
  const std::vector<std::string> arguments = {"generate", TinyKimi(), "-p",     "Dear",
                                              "-n",       "16",       "--seed", "7",
                                              "--temp",   "1.5",      "--json"};
  const nlohmann::json first = OdmoeJson(arguments);
  EXPECT_EQ(first["tokens"], OdmoeJson(arguments)["tokens"]);
  std::vector<std::string> other = arguments;
  other[7] = "8";
  EXPECT_NE(first["tokens"], OdmoeJson(other)["tokens"]);
}

TEST(GenerateCommandTest, EndsBeforeAStopString) {
  const nlohmann::json reference = Reference("prompt-short");
  const std::string greedy = reference["greedy_text"];
  // Straddles tokens, since it starts inside one word and ends inside another.
  const std::string stop = greedy.substr(41, 9);
  nlohmann::json result =
      OdmoeJson({"generate", TinyKimi(), "-p", reference["text"], "-n", "64", "--temp", "0",
                 "--stop", "not to be found", "--stop", stop, "--json"});
  EXPECT_EQ(result["text"], greedy.substr(0, greedy.find(stop)));
  EXPECT_EQ(result["finish_reason"], "stop");
}

TEST(GenerateCommandTest, StreamsTextToStandardOutputAndTheSummaryToError) {
  const nlohmann::json reference = Reference("prompt-short");
  const ProcessOutput output =
      Odmoe({"generate", TinyKimi(), "-p", reference["text"], "-n", "64", "--temp", "0"});
  EXPECT_EQ(output.out, reference["greedy_text"].get<std::string>() + "\n");
  EXPECT_THAT(output.err, ::testing::HasSubstr("64 tokens, "));
}

TEST(ReplayCommandTest, CountsWhatAPolicyHits) {
  const std::string trace = std::string(ODMOE_TEST_DATA) + "/traces/olmoe-1b-7b.jsonl";
  const nlohmann::json result =
      OdmoeJson({"replay", trace, "--policy", "default", "--budget", "1.5x", "--json"});
  EXPECT_EQ(result["accesses"], 299 * 16 * 8);
  const int64_t hits = result["hits"].get<int64_t>();
  EXPECT_NEAR(result["hit_rate"].get<double>(), double(hits) / (299 * 16 * 8), 1e-9);
  EXPECT_GT(result["hit_rate"].get<double>(), 0.55);
  EXPECT_EQ(result["bytes_read"].get<int64_t>(), (299 * 16 * 8 - hits) * 3538944);
  EXPECT_GT(result["share_of_way"].get<double>(), 0.3);

  const TemporaryDirectory directory;
  const ProcessOutput shown = Odmoe({"replay", trace, "--policy", "lru,belady", "--budget",
                                     "0.9x,25%,1GiB", "--svg", directory / "plot.svg"});
  EXPECT_EQ(shown.exit.code, 0) << shown.err;
  EXPECT_THAT(shown.out, ::testing::HasSubstr("hit rate over budget:  a lru  b belady"));
  EXPECT_THAT(ReadFileOrDie(directory / "plot.svg"), ::testing::StartsWith("<svg"));
}

TEST(ReplayCommandTest, ReplaysWhatScoreRecords) {
  const TemporaryDirectory directory;
  const nlohmann::json reference = Reference("passage-one");
  WriteFileOrDie(directory / "text", reference["text"].get<std::string>());
  OdmoeJson({"score", TinyKimi(), "-f", directory / "text", "--trace", directory / "trace.jsonl",
             "--json"});
  const nlohmann::json result =
      OdmoeJson({"replay", directory / "trace.jsonl", "--budget", "1x", "--json"});
  EXPECT_EQ(result["tokens"], reference["tokens"].size());
  EXPECT_EQ(result["replays"].size(), 6u);
  int64_t chosen = 0;
  for (const auto& [layer, tokens] : reference["experts"].items()) {
    for (const nlohmann::json& experts : tokens) chosen += static_cast<int64_t>(experts.size());
  }
  EXPECT_EQ(result["replays"][0]["accesses"], chosen);
  EXPECT_GT(result["replays"][0]["hits"], 0);
}

TEST(ReplayCommandTest, ReplaysTheTokensThatGenerateRecords) {
  const TemporaryDirectory directory;
  const std::string path = directory / "trace.jsonl";
  const nlohmann::json generated = OdmoeJson({"generate", TinyKimi(), "-p", "Dear", "-n", "20",
                                              "--temp", "0", "--ignore-eos", "--trace", path,
                                              "--json"});
  std::istringstream lines(ReadFileOrDie(path));
  std::string line;
  std::getline(lines, line);
  const nlohmann::json model = nlohmann::json::parse(line);
  size_t tokens = 0;
  for (; std::getline(lines, line); ++tokens) {
    const nlohmann::json token = nlohmann::json::parse(line);
    EXPECT_EQ(token["phase"], tokens < generated["prompt_tokens"] ? "prefill" : "decode");
    EXPECT_EQ(token["experts"].size(), model["layers"]);
  }
  // The last token was drawn and not run.
  EXPECT_EQ(tokens, generated["prompt_tokens"].get<size_t>() + 20 - 1);
  const nlohmann::json result = OdmoeJson({"replay", path, "--budget", "1x", "--json"});
  EXPECT_EQ(result["tokens"], 19);

  const ProcessOutput nowhere = Odmoe({"generate", TinyKimi(), "-p", "Dear", "-n", "1", "--trace",
                                       directory / "none/trace.jsonl"});
  EXPECT_EQ(nowhere.exit.code, 1);
  EXPECT_EQ(nowhere.out, "");  // said before any token
  const ProcessOutput elsewhere = Odmoe({"generate", "tiny-kimi", "-p", "Dear", "--trace", path,
                                         "--endpoint", "127.0.0.1:1"});
  EXPECT_EQ(elsewhere.exit.code, 2);
  EXPECT_THAT(elsewhere.err, ::testing::HasSubstr("--trace"));
}

}  // namespace
}  // namespace odmoe
