#include "services/inference/shadow/next_router_predictor.h"

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "services/inference/model/transformer.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

class NextRouterPredictorTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string& directory = TinyKimiDirectory("bf16");
    store_ = std::make_unique<ControlledExpertStore>(directory);
    auto base = BaseModel::Open(directory);
    ASSERT_TRUE(base.ok()) << base.status();
    base_ = *std::move(base);
    config_ = *ReadModelConfig(base_->metadata());
    auto weights = FindModelWeights(config_, *base_, store_->catalog());
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
  }

  // Runs a passage token by token; returns what it cost.
  ExpertUse Run(ExpertPredictor* predictor) {
    Transformer transformer(config_, weights_, *store_, pool_, 1);
    KvCache cache(config_);
    ExpertUse use;
    const std::vector<TokenId>& tokens = ReferenceTexts()[4].tokens;
    for (int i = 0; i < 100; ++i) {
      Step step;
      step.tokens = {&tokens[i], 1};
      step.cache = &cache;
      step.predictor = predictor;
      step.use = &use;
      EXPECT_TRUE(transformer.Forward(step).ok());
      last_.resize(config_.vocabulary);
      transformer.Logits(0, 1, last_.data());
    }
    return use;
  }

  std::unique_ptr<ControlledExpertStore> store_;
  std::unique_ptr<BaseModel> base_;
  ModelConfig config_;
  ModelWeights weights_;
  ComputePool pool_{1};
  std::vector<float> last_;
};

TEST_F(NextRouterPredictorTest, FarBetterThanChanceOnTheTrainedModel) {
  NextRouterPredictor predictor(config_, weights_, pool_, 2);
  const ExpertUse use = Run(&predictor);
  // Two experts in each of five MoE layers, all of which have a layer before them.
  EXPECT_EQ(use.predicted, 100u * 5 * 2);
  EXPECT_EQ(use.predicted_of, 100u * 5 * 2);
  // Chance is 2 of 16. Measured: 0.66 to 0.74, by text.
  EXPECT_GT(use.recall(), 0.6);
}

TEST_F(NextRouterPredictorTest, AWiderPredictionCatchesMore) {
  NextRouterPredictor narrow(config_, weights_, pool_, 2);
  NextRouterPredictor wide(config_, weights_, pool_, 6);
  NextRouterPredictor all(config_, weights_, pool_, 1000);
  const double narrow_recall = Run(&narrow).recall();
  const double wide_recall = Run(&wide).recall();
  EXPECT_GT(wide_recall, narrow_recall + 0.05);
  EXPECT_EQ(Run(&all).recall(), 1.0);
}

TEST_F(NextRouterPredictorTest, PredictionChangesNoBit) {
  Run(nullptr);
  const std::vector<float> expected = last_;
  NextRouterPredictor predictor(config_, weights_, pool_, 4);
  Run(&predictor);
  EXPECT_EQ(last_, expected);
}

TEST_F(NextRouterPredictorTest, WhatIsPredictedIsPrefetched) {
  NextRouterPredictor predictor(config_, weights_, pool_, 3);
  const ExpertUse use = Run(&predictor);
  const std::vector<ExpertId> prefetched = store_->prefetched();
  EXPECT_EQ(prefetched.size(), use.predicted);
  for (const ExpertId id : prefetched) EXPECT_GE(store_->catalog().IndexOf(id), 0);
  // The first token's first prediction: three different experts of the first MoE layer.
  const std::set<ExpertId> first(prefetched.begin(), prefetched.begin() + 3);
  EXPECT_EQ(first.size(), 3u);
  EXPECT_EQ(first.begin()->layer, 1);
  EXPECT_EQ(first.rbegin()->layer, 1);
}

TEST_F(NextRouterPredictorTest, WithoutAPredictorNothingIsPrefetched) {
  const ExpertUse use = Run(nullptr);
  EXPECT_EQ(use.predicted, 0u);
  EXPECT_EQ(use.predicted_of, 0u);
  EXPECT_TRUE(store_->prefetched().empty());
}

TEST_F(NextRouterPredictorTest, TheLastLayerHasNoNext) {
  NextRouterPredictor predictor(config_, weights_, pool_, 2);
  const std::vector<float> hidden(config_.dim, 1.0f);
  std::vector<ExpertId> experts = {{1, 1}};
  predictor.Predict(config_.layers - 1, hidden.data(), experts);
  EXPECT_TRUE(experts.empty());
}

}  // namespace
}  // namespace odmoe
