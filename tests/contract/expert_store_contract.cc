#include "tests/contract/expert_store_contract.h"

#include <algorithm>
#include <random>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "gmock/gmock.h"

namespace odmoe {
namespace {

MemoryExpertSource::RandomOptions Shape(int32_t experts) {
  MemoryExpertSource::RandomOptions options;
  options.layers = 2;
  options.experts_per_layer = experts;
  options.dim = 32;
  options.ffn = 48;
  return options;
}

}  // namespace

absl::Time Soon() { return absl::Now() + absl::Milliseconds(50); }
absl::Time Patient() { return absl::Now() + absl::Minutes(1); }

void ExpertStoreContractTest::Open(int64_t slots) {
  truth_ = MemoryExpertSource::Random(Shape(kExperts)).value();
  auto source = std::make_unique<FaultyExpertSource>(
      MemoryExpertSource::Random(Shape(kExperts)).value(), faults_);
  store_ = GetParam().make(std::move(source), slots, keep_);
  ASSERT_NE(store_, nullptr);
  if (GetParam().make_another) another_ = GetParam().make_another(keep_);
}

void ExpertStoreContractTest::CheckBytes(ExpertBatch& batch, size_t i, ExpertId id) {
  const auto view = batch.Wait(i);
  ASSERT_TRUE(view.ok()) << ExpertName(id) << ": " << view.status();
  const auto expected = truth_->Bytes(id);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % 64, 0u);
  EXPECT_EQ(view->layout->bytes, expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view->data)) << ExpertName(id);
}

void ExpertStoreContractTest::AcquireAndCheck(const std::vector<ExpertId>& ids) {
  const auto batch = store_->Acquire(ids, Patient());
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ((*batch)->size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) CheckBytes(**batch, i, ids[i]);
}

void ExpertStoreContractTest::PinFour(std::unique_ptr<ExpertBatch>& one,
                                      std::unique_ptr<ExpertBatch>& two) {
  AcquireAndCheck({{0, 0}, {0, 1}});
  AcquireAndCheck({{0, 2}, {0, 3}});
  one = store_->Acquire({{0, 0}, {0, 1}}, Patient()).value();
  two = (another_ ? *another_ : *store_).Acquire({{0, 2}, {0, 3}}, Patient()).value();
  ASSERT_EQ(one->hits() + two->hits(), 4u);
}

StoreStats ExpertStoreContractTest::AwaitStats(
    const std::function<bool(const StoreStats&)>& condition) {
  StoreStats stats;
  for (const absl::Time end = Patient(); absl::Now() < end; std::this_thread::yield()) {
    stats = store_->Stats().value();
    if (condition(stats)) return stats;
  }
  ADD_FAILURE() << "the statistics never got there";
  return stats;
}

TEST_P(ExpertStoreContractTest, MissesBringTheTrueBytes) {
  Open(8);
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (int32_t e = 0; e < kExperts; e += 4) {
      AcquireAndCheck({{layer, e}, {layer, e + 1}, {layer, e + 2}, {layer, e + 3}});
    }
  }
  EXPECT_EQ(faults_->reads(), 2u * kExperts);
}

TEST_P(ExpertStoreContractTest, WhatIsResidentIsAHitAndReadNoMore) {
  Open(8);
  EXPECT_FALSE(store_->Resident({0, 1}));
  AcquireAndCheck({{0, 1}, {0, 2}});
  EXPECT_TRUE(store_->Resident({0, 1}));
  EXPECT_FALSE(store_->Resident({0, 3}));
  EXPECT_FALSE(store_->Resident({-1, 0}));
  const uint64_t reads = faults_->reads();
  const auto batch = store_->Acquire({{0, 2}, {0, 1}}, Patient());
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ((*batch)->hits(), 2u);
  EXPECT_TRUE((*batch)->Ready(0));
  EXPECT_TRUE((*batch)->Ready(1));
  CheckBytes(**batch, 0, {0, 2});
  CheckBytes(**batch, 1, {0, 1});
  EXPECT_EQ(faults_->reads(), reads);
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 2u);
  EXPECT_EQ(stats.pinned_experts, 2u);
}

TEST_P(ExpertStoreContractTest, ADuplicateCountsOnce) {
  Open(8);
  AcquireAndCheck({{0, 3}, {0, 3}, {0, 3}});
  EXPECT_EQ(faults_->reads(), 1u);
  {
    const auto batch = store_->Acquire({{0, 3}, {0, 4}, {0, 3}}, Patient());
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ((*batch)->hits(), 1u);
    for (size_t i = 0; i < 3; ++i) CheckBytes(**batch, i, {0, i == 1 ? 4 : 3});
    EXPECT_EQ(store_->Stats()->pinned_experts, 2u);
  }
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.misses, 2u);
  EXPECT_EQ(stats.pinned_experts, 0u);
}

TEST_P(ExpertStoreContractTest, AnEmptyBatchIsNothing) {
  Open(8);
  const auto batch = store_->Acquire({}, Patient());
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ((*batch)->size(), 0u);
}

TEST_P(ExpertStoreContractTest, AnUnknownExpertIsNotFoundAndPinsNothing) {
  Open(8);
  AcquireAndCheck({{0, 0}});
  for (const ExpertId id : {ExpertId{2, 0}, ExpertId{0, kExperts}, ExpertId{-1, 0},
                            ExpertId{0, -1}}) {
    const auto batch = store_->Acquire({{0, 0}, id}, Patient());
    EXPECT_TRUE(absl::IsNotFound(batch.status())) << batch.status();
  }
  EXPECT_EQ(store_->Stats()->pinned_experts, 0u);
}

TEST_P(ExpertStoreContractTest, MoreThanMaxBatchIsRefused) {
  Open(8);
  ASSERT_EQ(store_->max_batch(), 4u);
  const std::vector<ExpertId> five = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}};
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Acquire(five, Patient()).status()));
  // Duplicates are no further experts.
  AcquireAndCheck({{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 3}});
}

TEST_P(ExpertStoreContractTest, ACorruptExpertIsLostAlone) {
  Open(8);
  faults_->Corrupt({0, 1});
  {
    const auto batch = store_->Acquire({{0, 0}, {0, 1}, {0, 2}}, Patient());
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto corrupt = (*batch)->Wait(1);
    EXPECT_TRUE(absl::IsDataLoss(corrupt.status())) << corrupt.status();
    EXPECT_THAT(corrupt.status().message(), ::testing::HasSubstr("layer_00_expert_001"));
    CheckBytes(**batch, 0, {0, 0});
    CheckBytes(**batch, 2, {0, 2});
  }
  EXPECT_EQ(store_->Stats()->checksum_failures, 1u);
  // It may have been the cable: asked again, it is read again.
  faults_->Heal({0, 1});
  AcquireAndCheck({{0, 1}});
}

TEST_P(ExpertStoreContractTest, AFailedReadFailsThatExpertAloneAndIsRetriedWhenAskedAgain) {
  Open(8);
  faults_->Fail({1, 5}, absl::UnavailableError("the disk is away"));
  {
    const auto batch = store_->Acquire({{1, 5}, {1, 6}}, Patient());
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto failed = (*batch)->Wait(0);
    EXPECT_TRUE(absl::IsUnavailable(failed.status())) << failed.status();
    CheckBytes(**batch, 1, {1, 6});
  }
  faults_->Heal({1, 5});
  AcquireAndCheck({{1, 5}});
  EXPECT_EQ(store_->Stats()->read_failures, 1u);
}

TEST_P(ExpertStoreContractTest, AReadThatHangsEndsAtTheDeadline) {
  Open(8);
  faults_->Hold();
  {
    const auto patient = store_->Acquire({{0, 0}}, Patient());
    ASSERT_TRUE(patient.ok()) << patient.status();
    EXPECT_FALSE((*patient)->AwaitReady(0, absl::Now()));
    const auto batch = store_->Acquire({{0, 0}}, Soon());
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto late = (*batch)->Wait(0);
    EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
    EXPECT_TRUE((*batch)->Ready(0));
  }
  faults_->Release();
  AcquireAndCheck({{0, 0}});
  AwaitStats([](const StoreStats& stats) { return stats.pinned_experts == 0; });
}

TEST_P(ExpertStoreContractTest, ConcurrentMissesOnOneExpertAreOneRead) {
  Open(8);
  faults_->Hold();
  auto first = store_->Acquire({{0, 0}, {0, 1}}, Patient());
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(faults_->AwaitHeld(2));
  auto second = store_->Acquire({{0, 1}}, Patient());
  ASSERT_TRUE(second.ok()) << second.status();
  AwaitStats([](const StoreStats& stats) { return stats.shared_misses == 1; });
  EXPECT_FALSE((*second)->Ready(0));
  faults_->Release();
  CheckBytes(**first, 0, {0, 0});
  CheckBytes(**first, 1, {0, 1});
  CheckBytes(**second, 0, {0, 1});
  EXPECT_EQ(faults_->reads({0, 1}), 1u);
  EXPECT_EQ(store_->Stats()->misses, 3u);
}

TEST_P(ExpertStoreContractTest, WithAllSlotsPinnedItFailsAtTheDeadline) {
  Open(4);
  ASSERT_EQ(store_->max_batch(), 2u);
  std::unique_ptr<ExpertBatch> one, two;
  PinFour(one, two);
  {
    // Long enough for the store's own answer to arrive by then, on a busy machine too.
    const auto starved = store_->Acquire({{1, 0}}, absl::Now() + absl::Milliseconds(500));
    ASSERT_TRUE(starved.ok()) << starved.status();
    const auto view = (*starved)->Wait(0);
    EXPECT_TRUE(absl::IsResourceExhausted(view.status())) << view.status();
  }
  EXPECT_EQ(faults_->reads({1, 0}), 0u);
  one.reset();
  AcquireAndCheck({{1, 0}});
  // What stayed pinned is what it was.
  for (size_t i = 0; i < 2; ++i) CheckBytes(*two, i, {0, static_cast<int32_t>(2 + i)});
}

TEST_P(ExpertStoreContractTest, WhoWaitsForASlotGetsTheNextFreeOne) {
  Open(4);
  std::unique_ptr<ExpertBatch> one, two;
  PinFour(one, two);
  auto waiting = store_->Acquire({{1, 0}}, Patient());
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_FALSE((*waiting)->AwaitReady(0, Soon()));
  one.reset();
  CheckBytes(**waiting, 0, {1, 0});
}

TEST_P(ExpertStoreContractTest, TheLeastRecentlyDemandedGoesFirst) {
  Open(4);
  for (int32_t e : {0, 1, 2, 3}) AcquireAndCheck({{0, e}});
  AcquireAndCheck({{0, 0}});  // a hit makes it the newest
  AcquireAndCheck({{1, 0}});  // evicts 1
  for (int32_t e : {0, 2, 3}) AcquireAndCheck({{0, e}});
  EXPECT_EQ(faults_->reads(), 5u);
  AcquireAndCheck({{0, 1}});
  EXPECT_EQ(faults_->reads({0, 1}), 2u);
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.evictions, 2u);
  EXPECT_EQ(stats.resident_experts, 4u);
}

TEST_P(ExpertStoreContractTest, WhatIsPinnedIsNeverEvicted) {
  Open(4);
  auto pinned = store_->Acquire({{0, 0}, {0, 1}}, Patient());
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  CheckBytes(**pinned, 0, {0, 0});
  CheckBytes(**pinned, 1, {0, 1});
  for (int round = 0; round < 20; ++round) AcquireAndCheck({{1, round % kExperts}});
  CheckBytes(**pinned, 0, {0, 0});
  CheckBytes(**pinned, 1, {0, 1});
  EXPECT_EQ(faults_->reads({0, 0}), 1u);
  EXPECT_EQ(faults_->reads({0, 1}), 1u);
}

TEST_P(ExpertStoreContractTest, TheWorkingSetStaysWithinTheBudget) {
  Open(3);
  for (int round = 0; round < 40; ++round) {
    AcquireAndCheck({{round % 2, (round * 3) % kExperts}});
    const StoreStats stats = store_->Stats().value();
    EXPECT_EQ(stats.slot_count, 3u);
    EXPECT_LE(stats.resident_experts, stats.slot_count);
    EXPECT_EQ(stats.resident_bytes, stats.resident_experts * stats.slot_bytes);
    EXPECT_LE(stats.resident_bytes, stats.budget_bytes);
  }
}

TEST_P(ExpertStoreContractTest, ABatchDroppedWhileItsReadsRunLeavesNoPins) {
  Open(8);
  faults_->Hold();
  auto batch = store_->Acquire({{0, 0}, {0, 1}}, Patient());
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_TRUE(faults_->AwaitHeld(2));
  batch->reset();
  faults_->Release();
  AwaitStats([](const StoreStats& stats) {
    return stats.reads == 2 && stats.resident_experts == 2 && stats.pinned_experts == 0;
  });
}

TEST_P(ExpertStoreContractTest, APrefetchedExpertIsAHitAndNotPinned) {
  Open(8);
  store_->Prefetch({{1, 2}, {7, 7}, {1, -1}});
  const StoreStats stats = AwaitStats([](const StoreStats& s) { return s.prefetch_reads == 1; });
  EXPECT_EQ(stats.prefetches, 1u);
  EXPECT_EQ(stats.pinned_experts, 0u);
  EXPECT_EQ(stats.misses, 0u);
  const auto batch = store_->Acquire({{1, 2}}, Patient());
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ((*batch)->hits(), 1u);
  CheckBytes(**batch, 0, {1, 2});
  AwaitStats([](const StoreStats& s) { return s.prefetch_useful == 1 && s.prefetch_wasted == 0; });
}

TEST_P(ExpertStoreContractTest, APrefetchEvictsNothingPinned) {
  Open(4);
  std::unique_ptr<ExpertBatch> one, two;
  PinFour(one, two);
  store_->Prefetch({{1, 0}, {1, 1}, {1, 2}});
  const StoreStats stats = AwaitStats([](const StoreStats& s) { return s.prefetch_dropped == 3; });
  EXPECT_EQ(stats.evictions, 0u);
  EXPECT_EQ(faults_->reads(), 4u);
}

TEST_P(ExpertStoreContractTest, AllBytesAreRightWhileManyThreadsEvictEachOthersExperts) {
  Open(6);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 150; ++round) {
        std::vector<ExpertId> ids;
        const int32_t layer = static_cast<int32_t>(random() % 2);
        for (int i = 0; i < 2; ++i) {
          ids.push_back({layer, static_cast<int32_t>(random() % kExperts)});
        }
        if (round % 5 == 0) store_->Prefetch({{1 - layer, ids[0].expert}});
        const auto batch = store_->Acquire(ids, Patient());
        ASSERT_TRUE(batch.ok()) << batch.status();
        for (size_t i = 0; i < ids.size(); ++i) CheckBytes(**batch, i, ids[i]);
        // Still right after the others have had their turn.
        for (size_t i = 0; i < ids.size(); ++i) CheckBytes(**batch, i, ids[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const StoreStats stats = AwaitStats([](const StoreStats& s) { return s.pinned_experts == 0; });
  EXPECT_GT(stats.evictions, 0u);
  EXPECT_LE(stats.resident_experts, 6u);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ExpertStoreContractTest);

}  // namespace odmoe
