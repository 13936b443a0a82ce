// The most likely continuations of the trained tiny model: equal to its reference's, token for
// token, however the machine and the expert store are set up.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/inference/engine/local_language_model.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

// One way to run the model.
struct Arrangement {
  const char* name;
  double budget_percent = 100.0;
  SourceKind source = SourceKind::kAuto;
  bool prefetch = true;
  int threads = 1;
  int prefill_chunk = 64;
};

constexpr Arrangement kArrangements[] = {
    {"AllResident"},
    {"QuarterResident", 25.0},
    {"QuarterResidentMapped", 25.0, SourceKind::kMapped},
    {"QuarterResidentDirect", 25.0, SourceKind::kDirect},
    {"QuarterResidentWithoutPrefetch", 25.0, SourceKind::kAuto, false},
    {"AllResidentWithoutPrefetch", 100.0, SourceKind::kAuto, false},
    {"TwoThreads", 100.0, SourceKind::kAuto, true, 2},
    {"QuarterResidentTwoThreads", 25.0, SourceKind::kAuto, true, 2},
    {"PrefillTokenByToken", 100.0, SourceKind::kAuto, true, 1, 1},
    {"PrefillByThrees", 25.0, SourceKind::kAuto, true, 1, 3},
    {"PrefillByFives", 100.0, SourceKind::kAuto, true, 2, 5},
};

class ContinuationTest : public testing::TestWithParam<Arrangement> {};

TEST_P(ContinuationTest, EqualsTheReferenceTokenForToken) {
  const Arrangement& arrangement = GetParam();
  const std::string& directory = TinyKimiDirectory("f32");
  auto store = OpenExpertStore({.model_directory = directory,
                                .budget = {Budget::Kind::kPercent, 0, arrangement.budget_percent},
                                .source = arrangement.source,
                                .prefetch = arrangement.prefetch});
  ASSERT_TRUE(store.ok()) << store.status();
  LocalModelOptions options;
  options.model_directory = directory;
  options.experts = *std::move(store);
  options.prefetch = arrangement.prefetch;
  options.threads = arrangement.threads;
  options.prefill_chunk = arrangement.prefill_chunk;
  auto model = OpenLocalLanguageModel(options);
  ASSERT_TRUE(model.ok()) << model.status();

  for (const ReferenceText& reference : ReferenceTexts()) {
    if (reference.greedy.empty()) continue;
    SCOPED_TRACE(reference.name);
    GenerateRequest request;
    request.prompt.text = reference.text;
    request.prompt.tokenize = {.add_special = false, .parse_special = false};
    request.max_tokens = static_cast<int32_t>(reference.greedy.size());
    request.sampling.temperature = 0.0f;
    request.ignore_eos = true;
    std::vector<TokenId> tokens;
    std::string text;
    const auto summary = (*model)->Generate(request, {}, [&](const TokenEvent& event) {
      tokens.push_back(event.token);
      text += event.text;
      return true;
    });
    ASSERT_TRUE(summary.ok()) << summary.status();
    EXPECT_EQ(tokens, reference.greedy);
    EXPECT_EQ(text + summary->tail, reference.greedy_text);
    EXPECT_EQ(summary->finish_reason, FinishReason::kLength);
    EXPECT_EQ(summary->experts.predicted > 0, arrangement.prefetch);
  }
}

INSTANTIATE_TEST_SUITE_P(EachArrangement, ContinuationTest, testing::ValuesIn(kArrangements),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace odmoe
