// A store that starts again reads back what was resident.
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/expert_storage/restart/warm_restart.h"
#include "tests/support/faulty_expert_source.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

SavedWorkingSet Sample() {
  SavedWorkingSet saved;
  saved.model_digest = "0123abcd";
  saved.tenants = {"default", "batch"};
  saved.experts = {{5, 0}, {1, 1}, {4000000000, 0}};
  saved.policy_state = std::string("\0\1\2", 3);
  return saved;
}

TEST(WorkingSetFileTest, WhatIsEncodedIsDecoded) {
  EXPECT_EQ(DecodeWorkingSet(EncodeWorkingSet(Sample()), "x").value(), Sample());
  EXPECT_EQ(DecodeWorkingSet(EncodeWorkingSet({}), "x").value(), SavedWorkingSet());
}

TEST(WorkingSetFileTest, EveryCutAndEveryFlippedBitIsDataLoss) {
  const std::string bytes = EncodeWorkingSet(Sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeWorkingSet(bytes.substr(0, size), "x").status())) << size;
  }
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_TRUE(absl::IsDataLoss(DecodeWorkingSet(flipped, "x").status())) << bit;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeWorkingSet(bytes + "x", "x").status()));
}

class WarmRestartTest : public ::testing::Test {
 protected:
  void OpenStore(uint64_t slots, uint64_t seed = 1, PolicyKind policy = PolicyKind::kDefault) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = 4;
    shape.experts_per_layer = 32;
    shape.dim = shape.ffn = 32;
    shape.seed = seed;
    auto memory = MemoryExpertSource::Random(shape).value();
    CachingExpertStore::Options options;
    options.budget_bytes = slots * SlotBytes(memory->catalog().max_expert_bytes());
    options.policy = policy;
    faults_ = std::make_shared<ReadFaults>();
    store_ = CachingExpertStore::Create(
                 std::make_unique<FaultyExpertSource>(std::move(memory), faults_),
                 std::move(options)).value();
  }
  void Restart() {
    restart_ = WarmRestart::Start(*store_, PosixFileSystem(), {directory_ / "state"}).value();
  }
  // As at an orderly end.
  void Close() {
    restart_.reset();
    store_.reset();
  }

  // Tokens whose experts follow a distribution with a heavy head. The share of hits.
  double Work(int tokens, uint64_t seed) {
    std::mt19937_64 random(seed);
    const StoreStats before = store_->Stats().value();
    for (int token = 0; token < tokens; ++token) {
      for (int32_t layer = 0; layer < 4; ++layer) {
        std::geometric_distribution<int32_t> expert(0.12);
        const std::vector<ExpertId> ids = {{layer, expert(random) % 32},
                                           {layer, expert(random) % 32}};
        const auto batch = store_->Acquire(ids, absl::Now() + absl::Minutes(1)).value();
        EXPECT_TRUE(batch->Wait(0).ok() && batch->Wait(1).ok());
      }
    }
    const StoreStats after = store_->Stats().value();
    const double hits = static_cast<double>(after.hits - before.hits);
    return hits / (hits + static_cast<double>(after.misses - before.misses));
  }
  void AwaitResident(uint64_t experts) {
    for (const absl::Time end = absl::Now() + absl::Minutes(1);
         store_->Stats()->resident_experts < experts && absl::Now() < end;
         std::this_thread::yield()) {
    }
    EXPECT_EQ(store_->Stats()->resident_experts, experts);
  }
  std::string FileName() const {
    return absl::StrCat(directory_ / "state", "/", store_->catalog().model_digest(),
                        ".working-set");
  }

  TemporaryDirectory directory_;
  std::shared_ptr<ReadFaults> faults_;
  std::unique_ptr<CachingExpertStore> store_;
  std::unique_ptr<WarmRestart> restart_;
};

TEST_F(WarmRestartTest, TheFormerHitRateIsBackWhenAllIsReadBack) {
  OpenStore(64);
  Restart();
  EXPECT_EQ(restart_->restored(), 0u);
  Work(300, 1);
  const double former = Work(100, 2);
  Close();

  OpenStore(64);
  Restart();
  EXPECT_EQ(restart_->restored(), 64u);
  EXPECT_TRUE(restart_->restore_status().ok());
  AwaitResident(64);
  const double again = Work(100, 2);
  EXPECT_GE(again, 0.95 * former) << former;
  // Cold it would be less, or this would prove nothing.
  Close();
  std::filesystem::remove_all(directory_ / "state");
  OpenStore(64);
  EXPECT_LT(Work(20, 2), 0.95 * former);
}

TEST_F(WarmRestartTest, AKillLosesNoMoreThanAPeriodEvenWhileReadingBack) {
  OpenStore(48);
  Restart();
  Work(200, 1);
  ASSERT_TRUE(restart_->Save().ok());
  const std::string saved = EncodeWorkingSet(store_->SaveWorkingSet());
  // A kill: what is on disk is what was saved then, whatever the store's end would write.
  const std::string path = FileName();
  Close();
  std::ofstream(path, std::ios::binary | std::ios::trunc) << saved;

  // Killed again while nothing but one expert has been read back, and another demanded.
  OpenStore(48);
  faults_->Hold();
  Restart();
  ASSERT_TRUE(faults_->AwaitHeld(1));
  ASSERT_TRUE(restart_->Save().ok());
  const SavedWorkingSet midway = store_->SaveWorkingSet();
  EXPECT_EQ(midway.experts.size(), 48u);
  faults_->Release();
  AwaitResident(48);
}

TEST_F(WarmRestartTest, DemandsGoFirstAndWhatTheyBringIsNotPushedOut) {
  OpenStore(16);
  Restart();
  Work(100, 1);
  const std::vector<SavedWorkingSet::Expert> before = store_->SaveWorkingSet().experts;
  Close();
  OpenStore(16);
  faults_->Hold();
  Restart();
  ASSERT_TRUE(faults_->AwaitHeld(2));
  // Two at once, which may begin in either order.
  EXPECT_TRUE(faults_->order()[0] == store_->catalog().IdOf(before[0].expert) ||
              faults_->order()[0] == store_->catalog().IdOf(before[1].expert));
  EXPECT_EQ(faults_->control(faults_->order()[0])->urgency(), ReadControl::Urgency::kBackground);
  // One that is being put back, and one that nobody thought of.
  const ExpertId joined = faults_->order()[0];
  const auto batch = store_->Acquire({joined, {3, 31}}, absl::Now() + absl::Minutes(1)).value();
  ASSERT_TRUE(faults_->AwaitHeld(3));
  EXPECT_EQ(faults_->control(joined)->urgency(), ReadControl::Urgency::kDemand);
  // Nothing more is put back while a demand is under way.
  EXPECT_EQ(faults_->reads(), 3u);
  faults_->Release();
  EXPECT_TRUE(batch->Wait(0).ok() && batch->Wait(1).ok());
  AwaitResident(16);
  EXPECT_TRUE(store_->Resident({3, 31}) && store_->Resident(joined));
  EXPECT_EQ(store_->Stats()->evictions, 0u);
}

TEST_F(WarmRestartTest, ASmallerBudgetKeepsTheMostWantedALargerOneAll) {
  OpenStore(32, 1, PolicyKind::kLru);
  Restart();
  Work(200, 1);
  const std::vector<SavedWorkingSet::Expert> wanted = store_->SaveWorkingSet().experts;
  Close();
  OpenStore(8, 1, PolicyKind::kLru);
  Restart();
  AwaitResident(8);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(store_->Resident(store_->catalog().IdOf(wanted[i].expert))) << i;
  }
  Close();
  OpenStore(128);
  Restart();
  AwaitResident(8);
}

TEST_F(WarmRestartTest, NothingIsPutBackOfAnotherModelOrFromABrokenFile) {
  OpenStore(16);
  Restart();
  Work(50, 1);
  const std::string path = FileName();
  const SavedWorkingSet saved = store_->SaveWorkingSet();
  Close();
  std::string bytes = EncodeWorkingSet(saved);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  OpenStore(16);
  Restart();
  EXPECT_EQ(restart_->restored(), 0u);
  EXPECT_TRUE(absl::IsDataLoss(restart_->restore_status()));
  EXPECT_THAT(std::string(restart_->restore_status().message()), HasSubstr(path));
  Close();
  OpenStore(16, /*seed=*/2);
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->PutBack(saved).status()));
  // Indices the model does not have, or twice, are passed over.
  SavedWorkingSet odd = saved;
  odd.model_digest = store_->catalog().model_digest();
  odd.experts = {{1, 0}, {1, 0}, {4000000000, 0}, {2, 1}};
  EXPECT_EQ(store_->PutBack(odd).value(), 2u);
  AwaitResident(2);
}

}  // namespace
}  // namespace odmoe
