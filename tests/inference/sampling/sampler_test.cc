#include "services/inference/sampling/sampler.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/generation/log_sum_exp.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;

std::vector<float> Logits(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int> CountDraws(const Sampling& sampling, const std::vector<float>& logits, int draws) {
  Sampler sampler(sampling);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    auto draw = sampler.Next(logits);
    EXPECT_TRUE(draw.ok()) << draw.status();
    if (!draw.ok()) break;
    ++counts[draw->token];
  }
  return counts;
}

std::set<TokenId> TokensDrawn(const Sampling& sampling, const std::vector<float>& logits) {
  const std::vector<int> counts = CountDraws(sampling, logits, 2000);
  std::set<TokenId> tokens;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) tokens.insert(static_cast<TokenId>(i));
  }
  return tokens;
}

// Four standard deviations of a binomial count: with these fixed seeds a bound, not a chance.
void ExpectFrequencies(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  const int draws = std::accumulate(counts.begin(), counts.end(), 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    const double p = probabilities[i];
    EXPECT_NEAR(counts[i], draws * p, 4.0 * std::sqrt(draws * p * (1.0 - p)) + 0.5)
        << "token " << i;
  }
}

TEST(SamplerTest, ZeroTemperatureTakesTheLargestLogit) {
  Sampler sampler({.temperature = 0.0f});
  EXPECT_EQ(sampler.Next({-1.0f, 3.5f, 3.25f, -7.0f})->token, 1);
}

TEST(SamplerTest, TiesGoToTheLowestId) {
  Sampler greedy({.temperature = 0.0f});
  EXPECT_EQ(greedy.Next({1.0f, 2.0f, 2.0f, 2.0f})->token, 1);
  EXPECT_THAT(TokensDrawn({.top_k = 2, .seed = 1}, {1.0f, 2.0f, 2.0f, 2.0f}), ElementsAre(1, 2));
}

TEST(SamplerTest, DrawsFollowTheProbabilities) {
  const std::vector<double> p = {0.5, 0.1, 0.25, 0.15};
  ExpectFrequencies(CountDraws({.seed = 3}, Logits(p), 40000), p);
}

TEST(SamplerTest, TemperatureScalesLogits) {
  // p^(1/2), renormalized.
  const std::vector<double> p = {0.64, 0.32, 0.04};
  const double sum = std::sqrt(0.64) + std::sqrt(0.32) + std::sqrt(0.04);
  ExpectFrequencies(CountDraws({.temperature = 2.0f, .seed = 4}, Logits(p), 40000),
                    {std::sqrt(0.64) / sum, std::sqrt(0.32) / sum, std::sqrt(0.04) / sum});
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  EXPECT_THAT(TokensDrawn({.temperature = 1e-30f, .seed = 5}, Logits({0.3, 0.31, 0.39})),
              ElementsAre(2));
}

TEST(SamplerTest, TopKKeepsTheMostLikely) {
  EXPECT_THAT(TokensDrawn({.top_k = 2, .seed = 6}, Logits({0.1, 0.4, 0.2, 0.3})),
              ElementsAre(1, 3));
  EXPECT_THAT(TokensDrawn({.top_k = 99, .seed = 6}, Logits({0.1, 0.4, 0.2, 0.3})),
              ElementsAre(0, 1, 2, 3));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  const auto logits = Logits({0.1, 0.4, 0.2, 0.3});
  EXPECT_THAT(TokensDrawn({.top_p = 0.39f, .seed = 7}, logits), ElementsAre(1));
  EXPECT_THAT(TokensDrawn({.top_p = 0.5f, .seed = 7}, logits), ElementsAre(1, 3));
  EXPECT_THAT(TokensDrawn({.top_p = 0.8f, .seed = 7}, logits), ElementsAre(1, 2, 3));
}

TEST(SamplerTest, TopPIsOfWhatTopKKept) {
  // Of 0.4 and 0.3, renormalized, the first alone is 0.57.
  EXPECT_THAT(TokensDrawn({.top_k = 2, .top_p = 0.55f, .seed = 8}, Logits({0.1, 0.4, 0.2, 0.3})),
              ElementsAre(1));
}

TEST(SamplerTest, TopPReachesFarDownAFlatDistribution) {
  const std::vector<float> flat(1000, 0.25f);
  const std::set<TokenId> drawn = TokensDrawn({.top_p = 0.5f, .seed = 9}, flat);
  EXPECT_LT(*drawn.rbegin(), 500) << "the first 500 of equals are half the weight";
  EXPECT_GT(drawn.size(), 400u);
}

TEST(SamplerTest, MinPIsRelativeToTheMostLikely) {
  const auto logits = Logits({0.1, 0.4, 0.2, 0.3});
  EXPECT_THAT(TokensDrawn({.min_p = 0.45f, .seed = 10}, logits), ElementsAre(1, 2, 3));
  EXPECT_THAT(TokensDrawn({.min_p = 0.6f, .seed = 10}, logits), ElementsAre(1, 3));
  EXPECT_THAT(TokensDrawn({.min_p = 0.99f, .seed = 10}, logits), ElementsAre(1));
}

TEST(SamplerTest, SeedFixesTheDraws) {
  const std::vector<float> logits = Logits({0.2, 0.2, 0.2, 0.2, 0.2});
  const auto draw = [&](std::optional<uint64_t> seed) {
    Sampler sampler({.seed = seed});
    std::vector<TokenId> tokens;
    for (int i = 0; i < 64; ++i) tokens.push_back(sampler.Next(logits)->token);
    return tokens;
  };
  EXPECT_EQ(draw(11), draw(11));
  EXPECT_NE(draw(11), draw(12));
  EXPECT_NE(draw(std::nullopt), draw(std::nullopt));
}

TEST(SamplerTest, DrawsAreTheDocumentedGeneratorsOnEveryPlatform) {
  // 256 equal tokens: the token drawn is the top byte of each number.
  const std::vector<float> logits(256, 1.0f);
  Sampler sampler({.seed = 5489});
  std::mt19937_64 generator(5489);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(sampler.Next(logits)->token, static_cast<TokenId>(generator() >> 56));
  }
  std::mt19937_64 standard(5489);
  standard.discard(9999);
  EXPECT_EQ(standard(), 9981545732273789042u) << "the value the C++ standard requires";
}

TEST(SamplerTest, LogprobsAreNaturalAndBeforeTemperature) {
  Sampler sampler({.temperature = 0.0f});
  const auto draw =
      sampler.Next(Logits({0.125, 0.5, 0.125, 0.25}), {.logprob = true, .top_logprobs = 3});
  ASSERT_TRUE(draw.ok());
  EXPECT_NEAR(draw->logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(draw->top_logprobs.size(), 3u);
  EXPECT_EQ(draw->top_logprobs[0].first, 1);
  EXPECT_EQ(draw->top_logprobs[1].first, 3);
  EXPECT_EQ(draw->top_logprobs[2].first, 0) << "of equals the lower id";
  EXPECT_NEAR(draw->top_logprobs[2].second, std::log(0.125), 1e-6);
}

TEST(SamplerTest, TopLogprobsAreNoMoreThanTheVocabulary) {
  Sampler sampler({.temperature = 0.0f});
  EXPECT_EQ(sampler.Next({1.0f, 2.0f}, {.logprob = true, .top_logprobs = 20})->top_logprobs.size(),
            2u);
}

TEST(SamplerTest, LogitsThatAreNotFiniteAreAnInternalError) {
  Sampler sampler({.temperature = 0.0f});
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(sampler.Next({0.0f, bad, 1.0f}).status().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(sampler.Next({}).status().code(), absl::StatusCode::kInternal);
}

TEST(SamplerTest, HugeLogitsDoNotOverflow) {
  const float max = std::numeric_limits<float>::max();
  EXPECT_THAT(TokensDrawn({.top_p = 0.9f, .seed = 13}, {-max, max, 0.0f}), ElementsAre(1));
  EXPECT_NEAR(LogProbability({max, max}, 0), std::log(0.5), 1e-6 * max);
  EXPECT_NEAR(LogSumExp({-1000.0f, -1000.0f}), -1000.0 + std::log(2.0), 1e-9);
}

}  // namespace
}  // namespace odmoe
