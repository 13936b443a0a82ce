#include "tests/support/tiny_kimi.h"

#include <memory>
#include <mutex>

#include "converter/convert.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

ReferenceText ReadReference(const std::string& name) {
  const nlohmann::json json = nlohmann::json::parse(
      ReadFileOrDie(std::string(ODMOE_TEST_DATA "/tiny-kimi-reference/") + name + ".json"));
  ReferenceText text;
  text.name = name;
  text.text = json.at("text");
  text.tokens = json.at("tokens").get<std::vector<TokenId>>();
  for (const auto& logprob : json.at("logprobs")) {
    text.logprobs.push_back(logprob.is_null() ? 0.0 : logprob.get<double>());
  }
  text.perplexity = json.at("perplexity");
  for (const auto& [layer, experts] : json.at("experts").items()) {
    text.experts[std::stoi(layer)] = experts.get<std::vector<std::vector<int32_t>>>();
  }
  if (json.contains("greedy")) {
    text.greedy = json.at("greedy").get<std::vector<TokenId>>();
    text.greedy_text = json.at("greedy_text");
  }
  return text;
}

}  // namespace

const std::string& TinyKimiDirectory(const std::string& outtype) {
  static TemporaryDirectory root;
  static std::mutex mutex;
  static std::map<std::string, std::string> made;
  const std::lock_guard<std::mutex> lock(mutex);
  std::string& directory = made[outtype];
  if (!directory.empty()) return directory;
  directory = root / ("tiny-kimi-" + outtype);
  ConvertOptions options;
  options.source = ODMOE_TEST_DATA "/tiny-kimi";
  options.destination = directory;
  options.outtype = outtype;
  const absl::StatusOr<ConvertPlan> plan = PlanConversion(options);
  const absl::Status status =
      plan.ok() ? RunConversion(*plan, nullptr, [](const ConvertProgress&) {}) : plan.status();
  EXPECT_TRUE(status.ok()) << status;
  return directory;
}

const std::vector<ReferenceText>& ReferenceTexts() {
  static const auto& texts = *new std::vector<ReferenceText>{
      ReadReference("prompt-short"), ReadReference("prompt-dialogue"),
      ReadReference("prompt-unicode"), ReadReference("passage-one"),
      ReadReference("passage-two")};
  return texts;
}

}  // namespace odmoe
