#include "services/expert_storage/open_expert_store.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class OpenExpertStoreTest : public ::testing::Test {
 protected:
  OpenExpertStoreTest() {
    MemoryExpertSource::RandomOptions shape;
    shape.experts_per_layer = 10;
    truth_ = WriteRandomExperts(directory_.path(), shape);
    options_.model_directory = directory_.path();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  OpenStoreOptions options_;
};

TEST_F(OpenExpertStoreTest, AQuarterOfTheExpertsIsAQuarterOfTheSlots) {
  options_.budget = ParseBudget("25%").value();
  const auto store = OpenExpertStore(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  const StoreStats stats = (*store)->Stats().value();
  EXPECT_EQ(stats.slot_count, 5u);
  EXPECT_EQ(stats.budget_bytes, 5 * stats.slot_bytes);
  EXPECT_EQ((*store)->arena().bytes(), stats.budget_bytes);
  const auto batch = (*store)->Acquire({{1, 9}}, absl::InfiniteFuture());
  ASSERT_TRUE(batch.ok());
  EXPECT_TRUE((*batch)->Wait(0).ok());
}

TEST_F(OpenExpertStoreTest, MoreThanAllExpertsIsAllExperts) {
  options_.budget = ParseBudget("1GiB").value();
  const auto store = OpenExpertStore(options_);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Stats()->slot_count, 20u);
  // Nobody waits for a slot then, so a batch may have any size.
  EXPECT_EQ((*store)->max_batch(), 20u);
}

TEST_F(OpenExpertStoreTest, LessThanOneSlotIsRefusedWithTheFigures) {
  options_.budget = ParseBudget("100B").value();
  const auto store = OpenExpertStore(options_);
  ASSERT_TRUE(absl::IsResourceExhausted(store.status())) << store.status();
  EXPECT_THAT(store.status().message(), ::testing::HasSubstr("100 bytes"));
}

TEST_F(OpenExpertStoreTest, ACorruptFileIsDataLossOfItsExpertAlone) {
  CorruptExpert(directory_.path(), {0, 3});
  for (const SourceKind kind : {SourceKind::kDirect, SourceKind::kMapped}) {
    options_.source = kind;
    options_.budget = ParseBudget("100%").value();
    const auto store = OpenExpertStore(options_).value();
    const auto batch = store->Acquire({{0, 2}, {0, 3}, {0, 4}}, absl::InfiniteFuture()).value();
    EXPECT_TRUE(batch->Wait(0).ok());
    EXPECT_TRUE(absl::IsDataLoss(batch->Wait(1).status())) << batch->Wait(1).status();
    EXPECT_TRUE(batch->Wait(2).ok());
  }
}

TEST_F(OpenExpertStoreTest, ADirectoryWithoutARegistryIsNoModel) {
  const TemporaryDirectory empty;
  options_.model_directory = empty.path();
  EXPECT_TRUE(absl::IsNotFound(OpenExpertStore(options_).status()));
}

TEST_F(OpenExpertStoreTest, ModelsOfOneFileSystemAreOnOneDisk) {
  const TemporaryDirectory other;
  SourceOptions several;
  several.also = {other.path(), "/nowhere"};
  const std::vector<uint64_t> disks = DisksOf(directory_.path(), several);
  ASSERT_EQ(disks.size(), 2u);
  EXPECT_EQ(disks[0], disks[1]);
  EXPECT_NE(DisksOf("/proc", {}), DisksOf(directory_.path(), {}));
  EXPECT_TRUE(DisksOf("/nowhere", {}).empty());
}

TEST_F(OpenExpertStoreTest, MaxBatchAllowsALayersDemandEvenWhereItIsMoreThanHalf) {
  OpenStoreOptions options;
  options.budget = ParseBudget("25%").value();
  auto source = OpenExpertSource(directory_.path(), SourceKind::kMapped).value();
  EXPECT_EQ(MakeExpertStore(std::move(source), options, /*demand=*/4).value()->max_batch(), 4u);
  source = OpenExpertSource(directory_.path(), SourceKind::kMapped).value();
  EXPECT_TRUE(absl::IsResourceExhausted(
      MakeExpertStore(std::move(source), options, /*demand=*/6).status()));
}

}  // namespace
}  // namespace odmoe
