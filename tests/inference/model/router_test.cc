#include "services/inference/model/router.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Choice {
  bool ok;
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice Choose(const RoutingConfig& config, std::vector<float> logits,
              std::vector<float> bias = {}) {
  Router router(config);
  Choice choice{false, std::vector<int32_t>(config.used), std::vector<float>(config.used)};
  choice.ok = router.Choose(absl::MakeSpan(logits), bias, choice.experts.data(),
                            choice.weights.data());
  return choice;
}

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

RoutingConfig Kimi(int32_t experts, int32_t used) {
  RoutingConfig config;
  config.experts = experts;
  config.used = used;
  config.gate = RoutingConfig::Gate::kSigmoid;
  config.normalize = true;
  config.scale = 2.827f;
  return config;
}

TEST(RouterTest, NormalizesTheChosenAndScales) {
  const Choice choice = Choose(Kimi(4, 2), {0.0f, 2.0f, -1.0f, 1.0f});
  ASSERT_TRUE(choice.ok);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 3}));
  const double sum = Sigmoid(2.0) + Sigmoid(1.0);
  EXPECT_NEAR(choice.weights[0], 2.827 * Sigmoid(2.0) / sum, 1e-6);
  EXPECT_NEAR(choice.weights[1], 2.827 * Sigmoid(1.0) / sum, 1e-6);
}

TEST(RouterTest, BiasSteersTheChoiceAndNotTheWeights) {
  const Choice choice = Choose(Kimi(4, 2), {0.0f, 2.0f, -1.0f, 1.0f}, {0.0f, 0.0f, 5.0f, 0.0f});
  ASSERT_TRUE(choice.ok);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{2, 1}));
  const double sum = Sigmoid(2.0) + Sigmoid(-1.0);
  EXPECT_NEAR(choice.weights[0], 2.827 * Sigmoid(-1.0) / sum, 1e-6);
  EXPECT_NEAR(choice.weights[1], 2.827 * Sigmoid(2.0) / sum, 1e-6);
}

TEST(RouterTest, SoftmaxWithoutNormalizationKeepsTheProbabilities) {
  RoutingConfig config;
  config.experts = 3;
  config.used = 2;
  const Choice choice = Choose(config, {1.0f, 3.0f, 2.0f});
  ASSERT_TRUE(choice.ok);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 2}));
  const double sum = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(choice.weights[0], std::exp(3.0) / sum, 1e-6);
  EXPECT_NEAR(choice.weights[1], std::exp(2.0) / sum, 1e-6);
}

TEST(RouterTest, TiesGoToTheLowerNumber) {
  EXPECT_EQ(Choose(Kimi(5, 3), {1, 1, 1, 1, 1}).experts, (std::vector<int32_t>{0, 1, 2}));
}

// Groups {0,1}, {2,3}, {4,5}; one is kept. By the sum of its two best, group 1 (scores .73 and
// .73) beats group 0 (.88 and .27); by the best alone it is the other way round.
RoutingConfig Grouped() {
  RoutingConfig config = Kimi(6, 2);
  config.groups = 3;
  config.groups_used = 1;
  return config;
}
const std::vector<float> kGroupLogits = {2.0f, -1.0f, 1.0f, 1.0f, -3.0f, -3.0f};

TEST(RouterTest, WithABiasAGroupCountsByItsTwoBest) {
  const std::vector<float> no_bias(6, 0.0f);
  EXPECT_EQ(Choose(Grouped(), kGroupLogits, no_bias).experts, (std::vector<int32_t>{2, 3}));
}

TEST(RouterTest, WithoutABiasAGroupCountsByItsBest) {
  EXPECT_EQ(Choose(Grouped(), kGroupLogits).experts, (std::vector<int32_t>{0, 1}));
}

TEST(RouterTest, TheBestGroupsTogetherAreChosenFrom) {
  RoutingConfig config = Grouped();
  config.groups_used = 2;
  EXPECT_EQ(Choose(config, kGroupLogits).experts, (std::vector<int32_t>{0, 2}));
}

TEST(RouterTest, NeverPrefersWhatIsNotANumber) {
  const Choice choice = Choose(Kimi(4, 2), {kNaN, 1.0f, kNaN, 0.0f});
  ASSERT_TRUE(choice.ok);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 3}));
}

TEST(RouterTest, SaysWhenTooFewAreNumbers) {
  EXPECT_FALSE(Choose(Kimi(4, 2), {kNaN, 1.0f, kNaN, kNaN}).ok);
  RoutingConfig softmax;
  softmax.experts = 2;
  softmax.used = 1;
  EXPECT_FALSE(Choose(softmax, {kNaN, kNaN}).ok);
}

TEST(RouterTest, RankGoesOnWhereChooseStops) {
  Router router(Kimi(4, 2));
  std::vector<float> logits = {0.0f, 2.0f, -1.0f, 1.0f};
  std::vector<int32_t> ranked(4);
  EXPECT_EQ(router.Rank(absl::MakeSpan(logits), {}, 4, ranked.data()), 4);
  EXPECT_EQ(ranked, (std::vector<int32_t>{1, 3, 0, 2}));
}

TEST(RouterTest, RankStopsAtTheGroupsLeftOut) {
  Router router(Grouped());
  std::vector<float> logits = kGroupLogits;
  std::vector<int32_t> ranked(6);
  EXPECT_EQ(router.Rank(absl::MakeSpan(logits), {}, 6, ranked.data()), 2);
}

}  // namespace
}  // namespace odmoe
