#include "services/core/experts/pin_page.h"

#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kEpoch = 5;
constexpr uint64_t kSlots = 6;
constexpr uint64_t kExperts = 100;

class PinPageTest : public ::testing::Test {
 protected:
  std::vector<int64_t> Take(uint64_t most = kAccessRingEntries) {
    std::vector<int64_t> experts;
    page_.TakeAccesses(kExperts, page_.accesses(), most, position_, experts);
    return experts;
  }
  PinPageHeader& header() { return *reinterpret_cast<PinPageHeader*>(memory_.span().data()); }

  SharedBytes memory_{PinPage::BytesFor(kSlots)};
  PinPage page_ = PinPage::Format(memory_.span(), kEpoch, kSlots);
  uint64_t position_ = 0;
};

TEST_F(PinPageTest, PinsOfASlotAddUp) {
  EXPECT_FALSE(page_.Pinned(2));
  page_.Pin(2);
  page_.Pin(2);
  page_.Unpin(2);
  EXPECT_TRUE(page_.Pinned(2));
  EXPECT_FALSE(page_.Pinned(1));
  page_.Unpin(2);
  EXPECT_FALSE(page_.Pinned(2));
}

TEST_F(PinPageTest, AccessesComeInTheirOrderOnce) {
  for (int64_t e : {4, 0, 99, 4}) page_.RecordAccess(e);
  EXPECT_THAT(Take(), ElementsAre(4, 0, 99, 4));
  EXPECT_THAT(Take(), IsEmpty());
  page_.RecordAccess(7);
  EXPECT_THAT(Take(), ElementsAre(7));
  for (int64_t e : {1, 2, 3, 4, 5}) page_.RecordAccess(e);
  EXPECT_THAT(Take(2), ElementsAre(1, 2));
  EXPECT_THAT(Take(2), ElementsAre(3, 4));
  EXPECT_THAT(Take(), ElementsAre(5));
}

TEST_F(PinPageTest, RoomIsReservedUpToTheLimitAndEachPinnedSlotTakesItOnce) {
  page_.SetSlotLimit(3);
  ASSERT_TRUE(page_.ReserveRoomForHits(2));
  page_.Pin(0);
  page_.Pin(1);
  page_.Pin(1);
  page_.GiveBackRoom(2);
  EXPECT_EQ(page_.held(), 2u);
  EXPECT_EQ(page_.CountPinned(), 2u);
  EXPECT_FALSE(page_.ReserveRoomForHits(2));
  EXPECT_TRUE(page_.ReserveRoomForHits(1));
  EXPECT_FALSE(page_.ReserveRoom(1, 3));
  EXPECT_TRUE(page_.ReserveRoom(1, 4));
  page_.GiveBackRoom(2);
  page_.Unpin(1);
  EXPECT_EQ(page_.held(), 2u);
  page_.Unpin(1);
  page_.Unpin(0);
  EXPECT_EQ(page_.held(), 0u);
  page_.SetSlotLimit(PinPage::kNoLimit);
  EXPECT_TRUE(page_.ReserveRoomForHits(uint64_t{1} << 40));
}

TEST_F(PinPageTest, AFullRingForgetsTheOldest) {
  for (uint32_t i = 0; i < kAccessRingEntries + 3; ++i) page_.RecordAccess(i < 3 ? 1 : 2);
  EXPECT_THAT(Take(), ::testing::AllOf(::testing::SizeIs(kAccessRingEntries), ::testing::Each(2)));
}

TEST_F(PinPageTest, AHostileRingGivesNoIndexOutOfRangeAndNoEndlessWork) {
  std::mt19937_64 random(1);
  auto* words = reinterpret_cast<uint32_t*>(memory_.span().data() + sizeof(PinPageHeader));
  for (int round = 0; round < 200; ++round) {
    for (uint32_t i = 0; i < kAccessRingEntries; ++i) words[i] = static_cast<uint32_t>(random());
    header().accesses.store(round % 3 == 0 ? random() : random() % 20000);
    std::vector<int64_t> experts;
    page_.TakeAccesses(kExperts, page_.accesses(), kAccessRingEntries, position_, experts);
    EXPECT_LE(experts.size(), kAccessRingEntries);
    for (int64_t e : experts) {
      ASSERT_GE(e, 0);
      ASSERT_LT(e, static_cast<int64_t>(kExperts));
    }
  }
}

TEST_F(PinPageTest, TheStoreTrustsNoSizeThatTheClientCanWrite) {
  header().slot_count = std::numeric_limits<uint64_t>::max();
  header().ring_entries = std::numeric_limits<uint32_t>::max();
  EXPECT_EQ(page_.slot_count(), kSlots);
  page_.RecordAccess(1);
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(PinPageTest, CountsHitsAndStalls) {
  page_.CountHits(3);
  page_.CountStall(1000);
  page_.CountHits(1);
  EXPECT_EQ(page_.hits(), 4u);
  EXPECT_EQ(page_.stall_ns(), 1000u);
}

TEST_F(PinPageTest, AttachRefusesAnotherPage) {
  EXPECT_TRUE(PinPage::Attach(memory_.span(), kEpoch, kSlots).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(
      PinPage::Attach(memory_.span(), kEpoch + 1, kSlots).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      PinPage::Attach(memory_.span(), kEpoch, kSlots - 1).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      PinPage::Attach(memory_.span(), kEpoch, 100000).status()));
  header().version = 9;
  EXPECT_TRUE(absl::IsFailedPrecondition(
      PinPage::Attach(memory_.span(), kEpoch, kSlots).status()));
}

}  // namespace
}  // namespace odmoe
