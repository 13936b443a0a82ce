// Another budget while the store is at work: not a wrong byte, never more memory than the budget,
// and demands that wait rather than fail.
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/expert_storage/arena/resize_plan.h"
#include "services/expert_storage/caching_expert_store.h"
#include "tests/support/faulty_expert_source.h"
#include "xxhash.h"

namespace odmoe {
namespace {

constexpr int32_t kResizeLayers = 4;
constexpr int32_t kResizeExperts = 16;

absl::Time Soon() { return absl::Now() + absl::Milliseconds(30); }
absl::Time Later() { return absl::Now() + absl::Minutes(1); }

TEST(ResizePlanTest, AnySequenceOfSizesIsMetExactlyAndNeverExceedsBoth) {
  std::mt19937 random(7);
  for (uint32_t segment_slots : {1u, 4u, 16u}) {
    const ArenaShape shape = MakeArenaShape(4096, 300, 40, segment_slots).value();
    std::vector<SegmentUse> there;
    uint64_t slots = 0;
    for (int round = 0; round < 2000; ++round) {
      // Mostly by a little, which is what leaves segments that are not whole.
      const uint64_t target = round % 5 == 0
                                  ? 1 + random() % 300
                                  : std::clamp<uint64_t>(slots + random() % 7 - 3, 1, 300);
      for (SegmentUse& segment : there) segment.warmth = random() % 100;
      const ResizePlan plan = PlanResize(shape, there, target);
      std::erase_if(there, [&](const SegmentUse& segment) {
        const bool gone = std::count(plan.retire.begin(), plan.retire.end(), segment.number) > 0;
        if (gone) slots -= segment.slots;
        return gone;
      });
      for (const Arena::Segment& segment : plan.add) {
        ASSERT_LT(segment.number, shape.segment_limit);
        ASSERT_TRUE(segment.slots > 0 && segment.slots <= segment_slots);
        for (const SegmentUse& other : there) ASSERT_NE(other.number, segment.number);
        there.push_back({segment.number, segment.slots, 0.0});
        slots += segment.slots;
      }
      ASSERT_EQ(slots, target) << "round " << round;
    }
  }
}

TEST(ResizePlanTest, TheLeastWarmGoAndNoMoreThanMust) {
  const ArenaShape shape = MakeArenaShape(4096, 64, 32, 8).value();
  const std::vector<SegmentUse> there = {{0, 8, 5.0}, {1, 8, 1.0}, {2, 8, 9.0}, {3, 8, 2.0}};
  const ResizePlan plan = PlanResize(shape, there, 21);
  EXPECT_THAT(plan.retire, ::testing::UnorderedElementsAre(1, 3));
  ASSERT_EQ(plan.add.size(), 1u);
  EXPECT_EQ(plan.add[0].slots, 5u);
  EXPECT_TRUE(PlanResize(shape, there, 32).empty());
}

class ResizeTest : public ::testing::TestWithParam<bool> {
 protected:
  void Open(uint64_t slots, uint64_t demand = 2) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = kResizeLayers;
    shape.experts_per_layer = kResizeExperts;
    auto source = std::make_unique<FaultyExpertSource>(MemoryExpertSource::Random(shape).value(),
                                                       faults_);
    slot_bytes_ = SlotBytes(source->catalog().max_expert_bytes());
    CachingExpertStore::Options options;
    options.budget_bytes = slots * slot_bytes_;
    options.demand = demand;
    options.segment_slots = 4;
    options.shareable = GetParam();
    store_ = CachingExpertStore::Create(std::move(source), std::move(options)).value();
  }

  absl::Status ResizeTo(uint64_t slots, absl::Time deadline = Later()) {
    return store_->Resize(slots * slot_bytes_, deadline);
  }

  // The bytes hash as the catalog says.
  void Check(ExpertId id, const ExpertView& view) {
    const LayerExperts& layer = *store_->catalog().FindLayer(id.layer);
    ASSERT_EQ(XXH3_64bits(view.data, layer.layout.bytes), layer.xxh3[id.expert]);
  }

  std::unique_ptr<ExpertBatch> Demand(const std::vector<ExpertId>& ids) {
    auto batch = store_->Acquire(ids, Later()).value();
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto view = batch->Wait(i);
      EXPECT_TRUE(view.ok()) << view.status();
      if (view.ok()) Check(ids[i], *view);
    }
    return batch;
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  uint64_t slot_bytes_ = 0;
  std::unique_ptr<CachingExpertStore> store_;
};

TEST_P(ResizeTest, DownAndUpAgainTheBudgetIsUsedWhole) {
  Open(13);
  for (uint64_t slots : {13, 7, 2, 9, 64, 11, 100, 3}) {
    ASSERT_TRUE(ResizeTo(slots).ok());
    for (int32_t e = 0; e < 8; ++e) Demand({{e % kResizeLayers, e}, {0, e + 8}});
    const StoreStats stats = store_->Stats().value();
    EXPECT_EQ(stats.budget_bytes, slots * slot_bytes_);
    EXPECT_EQ(stats.slot_count, std::min<uint64_t>(slots, 64));
    EXPECT_EQ(store_->arena().slot_count(), stats.slot_count);
    EXPECT_LE(stats.resident_experts, slots);
    EXPECT_EQ(store_->max_batch(),
              slots >= 64 ? 64 : std::max<uint64_t>(2, stats.slot_count / 2));
  }
}

TEST_P(ResizeTest, WhatWasPrefetchedInVainCountsAsWastedWhereItsSlotGoes) {
  Open(16);
  for (int32_t e = 0; e < 16; ++e) {
    store_->Prefetch({{0, e}});
    while (store_->Stats()->prefetch_reads <= static_cast<uint64_t>(e)) std::this_thread::yield();
  }
  ASSERT_TRUE(ResizeTo(4).ok());
  EXPECT_EQ(store_->Stats()->prefetch_wasted, 12u);
  EXPECT_EQ(store_->prefetch_counters().wasted_bytes,
            12 * store_->catalog().max_expert_bytes());
}

TEST_P(ResizeTest, WhatIsPinnedIsWaitedForAndThenTheStoreIsAsItWas) {
  Open(8);
  const std::vector<ExpertId> pinned = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  auto first = Demand({pinned[0], pinned[1], pinned[2], pinned[3]});
  auto second = Demand({{2, 0}, {2, 1}, {3, 0}});
  const absl::Status status = ResizeTo(4, Soon());
  ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("pinned"));
  StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.slot_count, 8u);
  EXPECT_EQ(stats.budget_bytes, 8 * slot_bytes_);
  // Whoever holds a pin reads on, and the slots come back as they are let go.
  for (size_t i = 0; i < pinned.size(); ++i) Check(pinned[i], first->Wait(i).value());
  first.reset();
  second.reset();
  for (int32_t e = 0; e < kResizeExperts; ++e) Demand({{2, e}, {3, e}});
  EXPECT_EQ(store_->Stats()->resident_experts, 8u);
  EXPECT_TRUE(ResizeTo(4).ok());
  EXPECT_EQ(store_->Stats()->slot_count, 4u);
}

TEST_P(ResizeTest, AReadUnderWayIsAnsweredFromTheSlotThatGoes) {
  Open(4);
  faults_->Hold();
  const auto batch = store_->Acquire({{0, 0}, {0, 1}}, Later()).value();
  ASSERT_TRUE(faults_->AwaitHeld(2));
  absl::Status status;
  std::thread resizer([&] { status = ResizeTo(2); });
  faults_->Release();
  for (int32_t e = 0; e < 2; ++e) Check({0, e}, batch->Wait(e).value());
  // Their slots go only once the batch does; meanwhile a demand finds others, or waits.
  auto held = store_->Acquire({{0, 0}}, Later()).value();
  const_cast<std::unique_ptr<ExpertBatch>&>(batch).reset();
  EXPECT_TRUE(held->Wait(0).ok());
  held.reset();
  resizer.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(store_->Stats()->slot_count, 2u);
}

TEST_P(ResizeTest, BelowOneLayersDemandIsRefusedWithTheFigures) {
  Open(8, /*demand=*/3);
  EXPECT_EQ(store_->minimum_budget_bytes(), 3 * slot_bytes_);
  const absl::Status status = ResizeTo(2);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(std::to_string(2 * slot_bytes_)));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Resize(0, Later())));
  EXPECT_EQ(store_->Stats()->slot_count, 8u);
  EXPECT_TRUE(ResizeTo(3).ok());
}

TEST_P(ResizeTest, EightCallersSeeNoWrongByteWhileTheBudgetGoesUpAndDown) {
  Open(32);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> checked{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&, caller] {
      std::mt19937 random(caller);
      while (!stop.load()) {
        // One at a time where the budget is small: eight that hold and wait would need eight.
        const ExpertId id = {static_cast<int32_t>(random() % kResizeLayers),
                             static_cast<int32_t>(random() % kResizeExperts)};
        Demand({id});
        checked.fetch_add(1);
      }
    });
  }
  std::mt19937 random(99);
  for (int round = 0; round < 60; ++round) {
    const uint64_t slots = 2 + random() % 40;
    const uint64_t before = checked.load();
    ASSERT_TRUE(ResizeTo(slots).ok());
    ASSERT_EQ(store_->arena().slot_count(), slots);
    while (checked.load() < before + 20) std::this_thread::yield();
    const StoreStats stats = store_->Stats().value();
    ASSERT_LE(stats.resident_bytes, stats.budget_bytes);
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(store_->Stats()->evictions, 100u);
  EXPECT_EQ(store_->Stats()->pinned_experts, 0u);
}

// Told of memory, it waits for its thread, as a source with a ring does, and that thread for what
// needs the store's lock, as the end of a read does.
class WaitingSource final : public ExpertSource {
 public:
  explicit WaitingSource(std::unique_ptr<ExpertSource> real) : real_(std::move(real)) {}

  const ExpertCatalog& catalog() const override { return real_->catalog(); }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override {
    real_->Read(id, destination, std::move(control), std::move(done));
  }
  void OfferMemory(absl::Span<std::byte>) override { UseStore(); }
  void TakeBackMemory(absl::Span<std::byte>) override { UseStore(); }

  void set_store(CachingExpertStore* store) { store_ = store; }
  int uses() const { return uses_; }

 private:
  void UseStore() {
    if (store_ == nullptr) return;
    ++uses_;
    auto used = std::make_shared<absl::Notification>();
    std::thread([store = store_, used] {
      store->Stats().IgnoreError();
      used->Notify();
    }).detach();
    ASSERT_TRUE(used->WaitForNotificationWithTimeout(absl::Seconds(20)));
  }

  const std::unique_ptr<ExpertSource> real_;
  CachingExpertStore* store_ = nullptr;
  int uses_ = 0;
};

TEST(ResizeLockTest, ASourceThatWaitsForTheEndOfAReadDoesNotHangTheStore) {
  MemoryExpertSource::RandomOptions shape;
  auto source = std::make_unique<WaitingSource>(MemoryExpertSource::Random(shape).value());
  WaitingSource& waiting = *source;
  CachingExpertStore::Options options;
  const uint64_t slot_bytes = SlotBytes(source->catalog().max_expert_bytes());
  options.budget_bytes = 4 * slot_bytes;
  const auto store = CachingExpertStore::Create(std::move(source), std::move(options)).value();
  waiting.set_store(store.get());
  for (const uint64_t slots : {8, 2, 6}) {
    ASSERT_TRUE(store->Resize(slots * slot_bytes, Later()).ok());
  }
  EXPECT_GE(waiting.uses(), 3);
}

TEST(HugePagesTest, AlwaysIsARefusalWhereThereCanBeNone) {
  EXPECT_EQ(ParseHugePages("always").value(), HugePages::kAlways);
  EXPECT_TRUE(absl::IsInvalidArgument(ParseHugePages("sometimes").status()));
  for (HugePages huge_pages : {HugePages::kAuto, HugePages::kNever, HugePages::kAlways}) {
    CachingExpertStore::Options options;
    options.budget_bytes = 64 << 10;  // less than one page of them
    options.huge_pages = huge_pages;
    options.lock_memory = true;
    const auto store = CachingExpertStore::Create(
        MemoryExpertSource::Random({}).value(), std::move(options));
    EXPECT_EQ(absl::IsFailedPrecondition(store.status()), huge_pages == HugePages::kAlways)
        << store.status();
    if (!store.ok()) continue;
    const StoreStats stats = (*store)->Stats().value();
    EXPECT_EQ(stats.huge_page_bytes, 0u);
    EXPECT_TRUE(stats.locked_bytes == 0 || stats.locked_bytes == (*store)->arena().bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Memory, ResizeTest, ::testing::Bool(), [](const auto& info) {
  return info.param ? "Shareable" : "Private";
});

}  // namespace
}  // namespace odmoe
