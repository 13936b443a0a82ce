// The forward pass against plain double-precision arithmetic, for every branch of the family that
// the trained tiny model does not take.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "converter/convert.h"
#include "gtest/gtest.h"
#include "services/inference/model/transformer.h"
#include "tests/inference/model/reference_model.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr Variant kVariants[] = {
    {.name = "V3"},
    {.name = "V3Grouped", .groups = 4, .groups_used = 2},
    {.name = "V2", .sigmoid = false, .bias = false, .normalize = false, .scale = 16.0f,
     .groups = 4, .groups_used = 2, .shared = 2},
    {.name = "V2Lite", .q_lora = 0, .sigmoid = false, .bias = false, .normalize = false,
     .scale = 1.0f, .shared = 2},
    {.name = "TiedHead", .tied = true},
    {.name = "NoSharedExpert", .shared = 0},
    {.name = "NoDenseLayer", .dense_layers = 0},
};

class VariantsTest : public testing::TestWithParam<Variant> {};

TEST_P(VariantsTest, LogitsAgreeWithDoublePrecision) {
  const ReferenceModel reference(GetParam());
  const TemporaryDirectory directory;
  reference.WriteGguf(directory / "model.gguf");
  const auto plan = PlanConversion({directory / "model.gguf", directory / "model"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const absl::Status split = RunConversion(*plan, nullptr, [](const ConvertProgress&) {});
  ASSERT_TRUE(split.ok()) << split;

  const auto base = BaseModel::Open(directory / "model");
  ASSERT_TRUE(base.ok()) << base.status();
  const auto config = ReadModelConfig((*base)->metadata());
  ASSERT_TRUE(config.ok()) << config.status();
  ControlledExpertStore store(directory / "model");
  const auto weights = FindModelWeights(*config, **base, store.catalog());
  ASSERT_TRUE(weights.ok()) << weights.status();
  ComputePool pool(2);
  Transformer transformer(*config, *weights, store, pool, 100);

  // More than one block of the cache, so that attention joins strips.
  std::vector<TokenId> tokens;
  for (int i = 0; i < 70; ++i) tokens.push_back((i * 29 + 5) % ReferenceModel::kVocabulary);
  KvCache cache(*config);
  ExpertUse use;
  Step step;
  step.tokens = tokens;
  step.cache = &cache;
  step.use = &use;
  const absl::Status status = transformer.Forward(step);
  ASSERT_TRUE(status.ok()) << status;
  std::vector<float> logits(tokens.size() * ReferenceModel::kVocabulary);
  transformer.Logits(0, static_cast<int64_t>(tokens.size()), logits.data());

  const auto expected = reference.Logits(tokens);
  double largest = 0.0;
  double worst = 0.0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int v = 0; v < ReferenceModel::kVocabulary; ++v) {
      largest = std::max(largest, std::abs(expected[t][v]));
      worst = std::max(worst,
                       std::abs(logits[t * ReferenceModel::kVocabulary + v] - expected[t][v]));
    }
  }
  EXPECT_GT(largest, 1.0);
  // Some hundred roundings of float, each at most 6e-8 of what it rounds.
  EXPECT_LT(worst, 2e-5 * largest);
}

INSTANTIATE_TEST_SUITE_P(EachVariant, VariantsTest, testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace odmoe
