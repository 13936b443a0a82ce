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
  WorkingSetTest() { set_.AddSlots(0, kSlots); }

  static constexpr uint64_t kSlots = 8;

  std::optional<uint32_t> Take(Purpose purpose, int32_t tenant = kDefaultTenant) {
    return set_.TakeSlot(purpose, tenant, pages_);
  }
  uint32_t Load(int64_t expert, bool prefetched = false, int32_t tenant = kDefaultTenant) {
    const auto slot = Take(prefetched ? Purpose::kPrefetch : Purpose::kDemand, tenant);
    EXPECT_TRUE(slot.has_value());
    set_.Publish(expert, *slot, tenant, prefetched ? Arrival::kWished : Arrival::kDemanded);
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
  EXPECT_FALSE(Take(Purpose::kDemand).has_value());
  EXPECT_FALSE(Take(Purpose::kPrefetch).has_value());
  EXPECT_EQ(pages_[0].CountPinned(), 8u);
  for (int64_t e = 0; e < 8; ++e) EXPECT_TRUE(table_.Find(e).has_value());
  pages_[0].Unpin(*set_.Find(5));
  EXPECT_EQ(Take(Purpose::kDemand), 5u);
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
    if (Take(Purpose::kPrefetch).has_value()) continue;
    break;
  }
  EXPECT_FALSE(set_.Find(5).has_value());
  EXPECT_TRUE(set_.Find(6).has_value());
  EXPECT_TRUE(set_.Find(7).has_value());
  EXPECT_FALSE(Take(Purpose::kPrefetch).has_value());
  EXPECT_TRUE(Take(Purpose::kDemand).has_value());
}

TEST_F(WorkingSetTest, PrefetchesAreCountedByTheirFate) {
  Load(0, /*prefetched=*/true);
  Load(1, /*prefetched=*/true);
  set_.Demanded(1, kDefaultTenant, 0);
  set_.Demanded(1, kDefaultTenant, 0);
  EXPECT_EQ(set_.counters().prefetch_useful, 1u);
  for (int64_t e = 2; e < 20; ++e) Load(e);
  EXPECT_EQ(set_.counters().prefetch_useful, 1u);
  EXPECT_EQ(set_.counters().prefetch_wasted, 1u);
}

TEST_F(WorkingSetTest, AReturnedSlotIsFreeAgain) {
  std::vector<uint32_t> taken;
  for (int i = 0; i < 8; ++i) taken.push_back(*Take(Purpose::kDemand));
  EXPECT_FALSE(Take(Purpose::kDemand).has_value());
  set_.ReturnSlot(taken[3], kDefaultTenant);
  EXPECT_EQ(Take(Purpose::kDemand), taken[3]);
}

TEST_F(WorkingSetTest, ATenantAtItsQuotaEvictsItsOwn) {
  set_.SetQuota(1, 3);
  for (int64_t e = 0; e < 3; ++e) Load(e, false, 1);
  for (int64_t e = 10; e < 13; ++e) Load(e, false, 2);
  // Two slots are free, yet not for tenant 1.
  for (int64_t e = 3; e < 9; ++e) Load(e, false, 1);
  EXPECT_EQ(set_.charged(1), 3u);
  EXPECT_EQ(set_.charged(2), 3u);
  EXPECT_EQ(set_.resident(), 6u);
  for (int64_t e = 10; e < 13; ++e) EXPECT_TRUE(set_.Find(e).has_value());
  // Tenant 2 has none, takes the free ones and then the oldest of all.
  for (int64_t e = 13; e < 16; ++e) Load(e, false, 2);
  EXPECT_FALSE(set_.Find(10).has_value());
  EXPECT_EQ(set_.charged(1), 3u);
  EXPECT_EQ(set_.charged(2), 5u);
}

TEST_F(WorkingSetTest, ATenantWhoseOwnArePinnedGetsNoOthers) {
  set_.SetQuota(1, 2);
  for (int64_t e = 0; e < 2; ++e) pages_[0].Pin(Load(e, false, 1));
  Load(10, false, 2);
  EXPECT_FALSE(Take(Purpose::kDemand, 1).has_value());
  EXPECT_TRUE(set_.Find(10).has_value());
  // A slot that is being filled is at its charge already.
  pages_[0].Unpin(*set_.Find(0));
  const auto slot = Take(Purpose::kDemand, 1);
  ASSERT_TRUE(slot.has_value());
  EXPECT_EQ(set_.charged(1), 2u);
  set_.ReturnSlot(*slot, 1);
  EXPECT_EQ(set_.charged(1), 1u);
}

TEST_F(WorkingSetTest, WhatAnotherTenantUsesIsHandedOverToIt) {
  set_.SetQuota(1, 2);
  set_.SetQuota(2, 1);
  Load(0, false, 1);
  Load(1, false, 1);
  set_.Demanded(7, 2, 0);
  set_.Demanded(7, 2, 1);
  Load(2, false, 1);
  EXPECT_TRUE(set_.Find(0).has_value());
  EXPECT_EQ(set_.charged(1), 2u);
  EXPECT_EQ(set_.charged(2), 1u);
  EXPECT_EQ(set_.counters().handed_over, 1u);
  // Tenant 2 is at its quota now, so that the next one is lost.
  Load(3, false, 1);
  EXPECT_FALSE(set_.Find(1).has_value());
  EXPECT_EQ(set_.charged(2), 1u);
  EXPECT_EQ(set_.counters().evictions, 1u);
}

TEST_F(WorkingSetTest, ALoweredQuotaIsReachedByEvicting) {
  for (int64_t e = 0; e < 6; ++e) Load(e, false, 1);
  set_.SetQuota(1, 2);
  Load(6, false, 1);
  EXPECT_EQ(set_.charged(1), 2u);
  EXPECT_EQ(set_.resident(), 2u);
  set_.SetQuota(1, WorkingSet::kNoQuota);
  for (int64_t e = 10; e < 16; ++e) Load(e, false, 1);
  EXPECT_EQ(set_.charged(1), 8u);
}

}  // namespace
}  // namespace odmoe
