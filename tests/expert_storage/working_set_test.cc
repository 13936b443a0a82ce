#include "services/expert_storage/working_set.h"

#include <memory>

#include "gtest/gtest.h"
#include "services/expert_storage/policy/lru_policy.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

using Purpose = WorkingSet::Purpose;

constexpr uint64_t kExperts = 32;

class WorkingSetTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSlots = 8;

  uint32_t Load(int64_t expert, bool prefetched = false) {
    const auto slot =
        set_.TakeSlot(prefetched ? Purpose::kPrefetch : Purpose::kDemand, pages_);
    EXPECT_TRUE(slot.has_value());
    set_.Publish(expert, *slot, prefetched);
    return *slot;
  }

  SharedBytes table_memory_{ResidencyTable::BytesFor(kExperts)};
  ResidencyTableWriter table_ =
      ResidencyTableWriter::Format(table_memory_.span(), {1, kExperts, kSlots, 4096});
  SharedBytes page_memory_{PinPage::BytesFor(kSlots)};
  std::vector<PinPage> pages_ = {PinPage::Format(page_memory_.span(), 1, kSlots)};
  WorkingSet set_{table_, std::make_unique<LruPolicy>(kExperts)};
};

TEST_F(WorkingSetTest, EveryExpertIsWhereTheTableSays) {
  for (int64_t e = 0; e < 20; ++e) {
    const uint32_t slot = Load(e);
    EXPECT_EQ(table_.Find(e)->slot, slot);
    EXPECT_EQ(set_.Find(e), slot);
    EXPECT_LE(set_.resident(), kSlots);
  }
  for (int64_t e = 0; e < 12; ++e) {
    EXPECT_FALSE(table_.Find(e).has_value());
    EXPECT_FALSE(set_.Find(e).has_value());
  }
  EXPECT_EQ(set_.counters().evictions, 12u);
}

TEST_F(WorkingSetTest, AFilledSlotHasANewGeneration) {
  const uint32_t slot = Load(0);
  const uint32_t before = table_.Find(0)->generation;
  for (int64_t e = 1; e < 9; ++e) Load(e);
  EXPECT_EQ(table_.Find(8)->slot, slot);
  EXPECT_EQ(table_.Find(8)->generation, before + 1);
}

TEST_F(WorkingSetTest, WithEverySlotPinnedThereIsNone) {
  for (int64_t e = 0; e < 8; ++e) pages_[0].Pin(Load(e));
  EXPECT_FALSE(set_.TakeSlot(Purpose::kDemand, pages_).has_value());
  EXPECT_FALSE(set_.TakeSlot(Purpose::kPrefetch, pages_).has_value());
  EXPECT_EQ(set_.CountPinned(pages_), 8u);
  for (int64_t e = 0; e < 8; ++e) EXPECT_TRUE(table_.Find(e).has_value());
  pages_[0].Unpin(*set_.Find(5));
  EXPECT_EQ(set_.TakeSlot(Purpose::kDemand, pages_), 5u);
}

TEST_F(WorkingSetTest, APinInAnyPageKeepsTheSlot) {
  SharedBytes other(PinPage::BytesFor(kSlots));
  pages_.push_back(PinPage::Format(other.span(), 1, kSlots));
  const uint32_t slot = Load(0);
  pages_[1].Pin(slot);
  for (int64_t e = 1; e < 30; ++e) Load(e);
  EXPECT_EQ(set_.Find(0), slot);
}

TEST_F(WorkingSetTest, APrefetchTakesNoSlotThatWasJustDemanded) {
  for (int64_t e = 0; e < 8; ++e) Load(e, /*prefetched=*/e < 2);
  // Two unused prefetches may go, then what was demanded longest ago, but not the last quarter.
  for (int64_t e = 8; e < 14; ++e) {
    if (set_.TakeSlot(Purpose::kPrefetch, pages_).has_value()) continue;
    break;
  }
  EXPECT_FALSE(set_.Find(5).has_value());
  EXPECT_TRUE(set_.Find(6).has_value());
  EXPECT_TRUE(set_.Find(7).has_value());
  EXPECT_FALSE(set_.TakeSlot(Purpose::kPrefetch, pages_).has_value());
  EXPECT_TRUE(set_.TakeSlot(Purpose::kDemand, pages_).has_value());
}

TEST_F(WorkingSetTest, PrefetchesAreCountedByTheirFate) {
  Load(0, /*prefetched=*/true);
  Load(1, /*prefetched=*/true);
  set_.Touch(0);
  set_.Touch(0);
  EXPECT_EQ(set_.counters().prefetch_useful, 1u);
  for (int64_t e = 2; e < 20; ++e) Load(e);
  EXPECT_EQ(set_.counters().prefetch_useful, 1u);
  EXPECT_EQ(set_.counters().prefetch_wasted, 1u);
}

TEST_F(WorkingSetTest, AReturnedSlotIsFreeAgain) {
  std::vector<uint32_t> taken;
  for (int i = 0; i < 8; ++i) taken.push_back(*set_.TakeSlot(Purpose::kDemand, pages_));
  EXPECT_FALSE(set_.TakeSlot(Purpose::kDemand, pages_).has_value());
  set_.ReturnSlot(taken[3]);
  EXPECT_EQ(set_.TakeSlot(Purpose::kDemand, pages_), taken[3]);
}

}  // namespace
}  // namespace odmoe
