#include "services/inference/model/transformer.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

constexpr int64_t kTokens = 40;

class TransformerTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string& directory = TinyKimiDirectory("bf16");
    store_ = std::make_unique<ControlledExpertStore>(directory);
    auto base = BaseModel::Open(directory);
    ASSERT_TRUE(base.ok()) << base.status();
    base_ = *std::move(base);
    auto config = ReadModelConfig(base_->metadata());
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *std::move(config);
    auto weights = FindModelWeights(config_, *base_, store_->catalog());
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
    tokens_ = ReferenceTexts()[3].tokens;
    tokens_.resize(kTokens);
  }

  Transformer Make(ComputePool& pool) {
    return Transformer(config_, weights_, *store_, pool, kTokens);
  }

  Step StepOf(absl::Span<const TokenId> tokens, KvCache& cache) {
    Step step;
    step.tokens = tokens;
    step.cache = &cache;
    step.use = &use_;
    return step;
  }

  // Logits after every token, the sequence run in steps of `step_tokens`.
  std::vector<float> Run(Transformer& transformer, int64_t step_tokens) {
    KvCache cache(config_);
    std::vector<float> logits(kTokens * config_.vocabulary);
    for (int64_t first = 0; first < kTokens; first += step_tokens) {
      const int64_t count = std::min(step_tokens, kTokens - first);
      const absl::Status status = transformer.Forward(
          StepOf(absl::MakeConstSpan(tokens_).subspan(first, count), cache));
      EXPECT_TRUE(status.ok()) << status;
      transformer.Logits(0, count, logits.data() + first * config_.vocabulary);
    }
    EXPECT_EQ(cache.length(), kTokens);
    return logits;
  }

  std::unique_ptr<ControlledExpertStore> store_;
  std::unique_ptr<BaseModel> base_;
  ModelConfig config_;
  ModelWeights weights_;
  std::vector<TokenId> tokens_;
  ExpertUse use_;
};

TEST_F(TransformerTest, BitsDoNotDependOnStepsOrThreads) {
  ComputePool one(1);
  Transformer alone = Make(one);
  const std::vector<float> expected = Run(alone, kTokens);
  for (const int64_t step_tokens : {1, 7, 16}) {
    for (const int threads : {1, 3}) {
      ComputePool pool(threads);
      Transformer transformer = Make(pool);
      EXPECT_EQ(Run(transformer, step_tokens), expected) << step_tokens << ", " << threads;
    }
  }
}

TEST_F(TransformerTest, BitsDoNotDependOnTheOrderOfArrival) {
  ComputePool pool(2);
  Transformer transformer = Make(pool);
  const std::vector<float> expected = Run(transformer, 16);
  store_->late = true;
  EXPECT_EQ(Run(transformer, 16), expected);
  store_->last_first = true;
  EXPECT_EQ(Run(transformer, 16), expected);
}

TEST_F(TransformerTest, ExpertsThatDoNotFitAtOnceComeInWaves) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  const std::vector<float> expected = Run(transformer, kTokens);
  EXPECT_GT(store_->largest_batch(), 3u);
  for (const size_t limit : {1, 3}) {
    store_ = std::make_unique<ControlledExpertStore>(TinyKimiDirectory("bf16"));
    store_->batch_limit = limit;
    auto weights = FindModelWeights(config_, *base_, store_->catalog());
    ASSERT_TRUE(weights.ok());
    weights_ = *std::move(weights);
    Transformer narrow = Make(pool);
    EXPECT_EQ(Run(narrow, kTokens), expected) << limit;
    EXPECT_EQ(store_->largest_batch(), limit);
  }
}

TEST_F(TransformerTest, HoldsNoExpertBetweenLayers) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  store_->on_acquire = [this](absl::Span<const ExpertId>) {
    EXPECT_EQ(store_->open_batches(), 0);
    return absl::OkStatus();
  };
  Run(transformer, 8);
  EXPECT_EQ(store_->open_batches(), 0);
}

TEST_F(TransformerTest, CountsHitsAndMisses) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  ASSERT_TRUE(transformer.Forward(StepOf({&tokens_[0], 1}, cache)).ok());
  EXPECT_EQ(use_.hits, 10u);  // five layers, two experts each
  EXPECT_EQ(use_.misses, 0u);
  store_->late = true;
  ASSERT_TRUE(transformer.Forward(StepOf({&tokens_[1], 1}, cache)).ok());
  EXPECT_EQ(use_.hits, 10u);
  EXPECT_EQ(use_.misses, 10u);
}

TEST_F(TransformerTest, AFailedStepLeavesTheSequenceAsItWas) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  const std::vector<float> expected = Run(transformer, kTokens);
  KvCache cache(config_);
  ASSERT_TRUE(transformer.Forward(StepOf({tokens_.data(), 10}, cache)).ok());

  store_->on_wait = [](ExpertId id) {
    return id.layer == 3 ? absl::DataLossError("flipped") : absl::OkStatus();
  };
  EXPECT_EQ(transformer.Forward(StepOf({tokens_.data() + 10, 30}, cache)).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(cache.length(), 10);
  EXPECT_EQ(store_->open_batches(), 0);

  store_->on_wait = nullptr;
  ASSERT_TRUE(transformer.Forward(StepOf({tokens_.data() + 10, 30}, cache)).ok());
  std::vector<float> last(config_.vocabulary);
  transformer.Logits(29, 1, last.data());
  EXPECT_EQ(last, std::vector<float>(expected.end() - config_.vocabulary, expected.end()));
}

TEST_F(TransformerTest, TheStoresErrorIsTheStepsError) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  store_->on_acquire = [](absl::Span<const ExpertId>) {
    return absl::UnavailableError("the store went away");
  };
  EXPECT_EQ(transformer.Forward(StepOf({tokens_.data(), 1}, cache)).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(TransformerTest, CancellationIsNoticedWhileAnExpertIsAwaited) {
  store_->late = true;
  Cancellation cancellation;
  int waits = 0;
  store_->on_await = [&](ExpertId, absl::Time until) {
    EXPECT_LT(until, absl::InfiniteFuture());
    if (++waits == 3) cancellation.Cancel();
    return false;
  };
  store_->on_wait = [](ExpertId) { return absl::InternalError("waited for what never comes"); };
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  Step step = StepOf({tokens_.data(), 1}, cache);
  step.cancellation = &cancellation;
  EXPECT_EQ(transformer.Forward(step).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waits, 3);
  EXPECT_EQ(store_->open_batches(), 0);
}

TEST_F(TransformerTest, CancellationIsNoticedWithinALayer) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  Cancellation cancellation;
  int acquires = 0;
  store_->on_acquire = [&](absl::Span<const ExpertId>) {
    if (++acquires == 2) cancellation.Cancel();
    return absl::OkStatus();
  };
  Step step = StepOf({tokens_.data(), 1}, cache);
  step.cancellation = &cancellation;
  EXPECT_EQ(transformer.Forward(step).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(acquires, 2);
  EXPECT_EQ(cache.length(), 0);
}

TEST_F(TransformerTest, APassedDeadlineEndsTheStep) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  Step step = StepOf({tokens_.data(), 1}, cache);
  step.deadline = absl::InfinitePast();
  EXPECT_EQ(transformer.Forward(step).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(TransformerTest, RefusesTokensItCannotTake) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  KvCache cache(config_);
  const std::vector<TokenId> too_many(kTokens + 1, 1);
  for (const std::vector<TokenId>& tokens :
       {std::vector<TokenId>{}, std::vector<TokenId>{-1}, std::vector<TokenId>{2048}, too_many}) {
    EXPECT_EQ(transformer.Forward(StepOf(tokens, cache)).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace odmoe
