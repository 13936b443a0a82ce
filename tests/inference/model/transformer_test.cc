#include "services/inference/model/transformer.h"

#include <functional>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/base/status_macros.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

constexpr int64_t kTokens = 40;

// A second host in this process: the same experts, computed by the same code.
class LocalExecutor : public ExpertExecutor {
 public:
  explicit LocalExecutor(ControlledExpertStore& store) : store_(store) {}

  absl::Status on_execute;                                // what Execute fails with
  std::function<absl::Status(ExpertId)> on_wait;          // what Wait fails with
  int executions = 0;

  const ExpertCatalog& catalog() const override { return store_.catalog(); }

  absl::StatusOr<std::unique_ptr<ExpertExecution>> Execute(
      int32_t layer, int64_t tokens, absl::Span<const float> hidden,
      absl::Span<const TokensOfExpert> experts, absl::Time deadline) override {
    ODMOE_RETURN_IF_ERROR(on_execute);
    ++executions;
    const ExpertLayout& layout = catalog().FindLayer(layer)->layout;
    const int64_t dim = layout.w1.columns;
    EXPECT_EQ(hidden.size(), static_cast<size_t>(tokens * dim));
    auto execution = std::make_unique<Execution>(*this);
    Activations x;
    x.Set(hidden.data(), tokens, dim, dim);
    for (const TokensOfExpert& expert : experts) {
      const ExpertId id = {layer, expert.expert};
      const auto batch = store_.Acquire({id}, deadline);
      EXPECT_TRUE(batch.ok()) << batch.status();
      execution->ids.push_back(id);
      execution->outputs.emplace_back(expert.tokens.size() * dim);
      const ExpertWork work = {(*batch)->Wait(0)->data, expert.expert, expert.tokens,
                               execution->outputs.back().data()};
      ComputePool pool(1);
      ExpertMlp().Run(pool, layout, {}, x, {&work, 1});
    }
    return execution;
  }

 private:
  struct Execution : ExpertExecution {
    explicit Execution(LocalExecutor& owner) : owner(owner) {}
    bool Ready(size_t) override { return true; }
    bool AwaitReady(size_t, absl::Time) override { return true; }
    absl::StatusOr<absl::Span<const float>> Wait(size_t i) override {
      if (owner.on_wait) ODMOE_RETURN_IF_ERROR(owner.on_wait(ids[i]));
      return absl::MakeConstSpan(outputs[i]);
    }
    LocalExecutor& owner;
    std::vector<ExpertId> ids;
    std::vector<std::vector<float>> outputs;
  };

  ControlledExpertStore& store_;
};

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

TEST_F(TransformerTest, BitsDoNotDependOnWhereExpertsAreComputed) {
  ComputePool pool(2);
  Transformer alone = Make(pool);
  const std::vector<float> expected = Run(alone, 7);
  LocalExecutor executor(*store_);
  // None resident, and every third.
  for (const int resident : {0, 3}) {
    store_->resident = [&](ExpertId id) { return resident > 0 && id.expert % resident == 0; };
    for (const RemoteMode mode :
         {RemoteMode::kFetch, RemoteMode::kExecute, RemoteMode::kAuto}) {
      // What fetching costs is learnt from misses.
      store_->late = mode == RemoteMode::kAuto;
      executor.executions = 0;
      use_ = {};
      Transformer transformer(config_, weights_, *store_, pool, kTokens, {&executor, mode});
      EXPECT_EQ(Run(transformer, 7), expected) << RemoteModeName(mode) << ", " << resident;
      EXPECT_EQ(executor.executions > 0, mode != RemoteMode::kFetch) << RemoteModeName(mode);
      EXPECT_EQ(use_.executed > 0, mode != RemoteMode::kFetch);
      if (mode == RemoteMode::kExecute) EXPECT_EQ(use_.hits > 0, resident > 0);
    }
  }
}

TEST_F(TransformerTest, WhatCannotBeExecutedIsFetched) {
  ComputePool pool(1);
  Transformer alone = Make(pool);
  const std::vector<float> expected = Run(alone, 7);
  store_->resident = [](ExpertId) { return false; };
  LocalExecutor executor(*store_);
  // One expert corrupt there; then nobody there any more.
  executor.on_wait = [](ExpertId id) {
    return id.expert == 3 ? absl::DataLossError("flipped") : absl::OkStatus();
  };
  Transformer some(config_, weights_, *store_, pool, kTokens, {&executor, RemoteMode::kExecute});
  EXPECT_EQ(Run(some, 7), expected);
  EXPECT_GT(use_.executed, 0u);
  EXPECT_GT(use_.hits, 0u);
  use_ = {};
  executor.on_execute = absl::UnavailableError("gone");
  Transformer none(config_, weights_, *store_, pool, kTokens, {&executor, RemoteMode::kExecute});
  EXPECT_EQ(Run(none, 7), expected);
  EXPECT_EQ(use_.executed, 0u);
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

TEST_F(TransformerTest, AStoreThatIsGivenLessMemoryMeanwhileIsAskedForLess) {
  ComputePool pool(1);
  Transformer transformer = Make(pool);
  const std::vector<float> expected = Run(transformer, kTokens);
  // Smaller with each batch, between the stage's question and its demand.
  store_->batch_limit = 6;
  store_->on_acquire = [this](absl::Span<const ExpertId>) {
    if (store_->batch_limit > 1) --store_->batch_limit;
    return absl::OkStatus();
  };
  EXPECT_EQ(Run(transformer, kTokens), expected);
  EXPECT_EQ(store_->batch_limit, 1u);
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
