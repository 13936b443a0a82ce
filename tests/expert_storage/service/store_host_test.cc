#include "services/expert_storage/service/store_host.h"

#include <filesystem>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class StoreHostTest : public ::testing::Test {
 protected:
  StoreHostTest() {
    for (const char* model : {"root/one", "root/two", "outside/three"}) {
      WriteRandomExperts(directory_ / model, {});
    }
  }

  absl::StatusOr<std::shared_ptr<HostedModel>> OpenForClient(const std::string& path) {
    return host_.OpenForClient(path, half_, SourceKind::kMapped);
  }

  const Budget half_ = ParseBudget("50%").value();
  TemporaryDirectory directory_;
  StoreHost host_{{{directory_ / "root"}, true}};
};

TEST_F(StoreHostTest, OpensBelowARootOnly) {
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "outside/three").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(
      OpenForClient(directory_ / "root/../outside/three").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/../roots").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient("/").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenForClient("root/one").status()));
  EXPECT_TRUE(absl::IsNotFound(OpenForClient(directory_ / "root/none").status()));
  const auto model = OpenForClient(directory_ / "root/one");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->name, "one");
}

TEST_F(StoreHostTest, ALinkOutOfARootLeadsNowhere) {
  std::filesystem::create_directory_symlink(directory_ / "outside/three",
                                            directory_ / "root/link");
  std::filesystem::create_directory_symlink(directory_ / "outside", directory_ / "root/up");
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/link").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/up/three").status()));
}

TEST_F(StoreHostTest, ARootThatIsALinkIsWhereItPoints) {
  std::filesystem::create_directory_symlink(directory_ / "root", directory_ / "alias");
  StoreHost host({{directory_ / "alias"}, true});
  EXPECT_TRUE(host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(StoreHostTest, WithoutRootsClientsOpenNothing) {
  StoreHost host({{}, true});
  EXPECT_TRUE(absl::IsPermissionDenied(
      host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).status()));
  EXPECT_TRUE(host.Open(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(StoreHostTest, OpeningTheSameAgainChangesNothing) {
  const auto first = OpenForClient(directory_ / "root/one").value();
  EXPECT_EQ(OpenForClient(directory_ / "root/one/").value(), first);
  EXPECT_EQ(OpenForClient(directory_ / "root/./one").value(), first);
}

TEST_F(StoreHostTest, AnotherBudgetOrAnotherModelOfThatNameIsRefused) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(
      host_.OpenForClient(directory_ / "root/one", Budget{}, SourceKind::kMapped).status()));
  WriteRandomExperts(directory_ / "root/deeper/one", {});
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenForClient(directory_ / "root/deeper/one").status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Close("two")));
  EXPECT_TRUE(host_.Close("").ok());
  EXPECT_TRUE(OpenForClient(directory_ / "root/deeper/one").ok());
}

TEST_F(StoreHostTest, SeveralModelsAreFoundByTheirNames) {
  const auto one = OpenForClient(directory_ / "root/one").value();
  EXPECT_EQ(host_.Find("").value(), one);
  const auto two = OpenForClient(directory_ / "root/two").value();
  EXPECT_EQ(host_.Find("one").value(), one);
  EXPECT_EQ(host_.Find("two").value(), two);
  EXPECT_TRUE(absl::IsInvalidArgument(host_.Find("").status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Find("three").status()));
  EXPECT_EQ(host_.List().size(), 2u);
  EXPECT_TRUE(host_.Close("one").ok());
  EXPECT_EQ(host_.Find("").value(), two);
}

// Models of 8 experts each, demand 1, under a budget of some slots.
class SharedBudgetTest : public StoreHostTest {
 protected:
  void SetUp() override {
    slot_ = OpenForClient(directory_ / "root/one").value()->store->arena().shape().slot_bytes;
    count_ = host_.Find("one").value()->store->catalog().expert_count();
    ASSERT_TRUE(host_.Close("one").ok());
  }
  StoreHost::Options Total(uint64_t slots) {
    StoreHost::Options options;
    options.roots = {directory_ / "root"};
    options.total = {Budget::Kind::kBytes, slots * slot_, 0.0};
    return options;
  }
  Budget Slots(uint64_t slots) { return {Budget::Kind::kBytes, slots * slot_, 0.0}; }
  static uint64_t Held(const StoreHost& host, const char* name) {
    return host.Find(name).value()->store->arena().slot_count();
  }

  uint64_t slot_ = 0;
  uint64_t count_ = 0;
};

TEST_F(SharedBudgetTest, AutomaticModelsMakeRoomAndGetItBack) {
  ASSERT_GE(count_, 6u);
  StoreHost host(Total(6));
  ASSERT_TRUE(host.Open(directory_ / "root/one", Budget{}, SourceKind::kMapped).ok());
  EXPECT_EQ(Held(host, "one"), 6u);
  ASSERT_TRUE(host.Open(directory_ / "root/two", Budget{}, SourceKind::kMapped).ok());
  EXPECT_EQ(Held(host, "one"), 3u);
  EXPECT_EQ(Held(host, "two"), 3u);
  ASSERT_TRUE(host.Open(directory_ / "outside/three", Slots(4), SourceKind::kMapped).ok());
  EXPECT_EQ(Held(host, "one") + Held(host, "two"), 2u);
  ASSERT_TRUE(host.Close("three").ok());
  EXPECT_EQ(Held(host, "one") + Held(host, "two"), 6u);
  ASSERT_TRUE(host.Resize("two", Slots(5), absl::Now() + absl::Minutes(1)).ok());
  EXPECT_EQ(Held(host, "one"), 1u);
  ASSERT_TRUE(host.ResizeTotal(Slots(8), absl::Now() + absl::Minutes(1)).ok());
  EXPECT_EQ(Held(host, "one"), 3u);
  EXPECT_EQ(Held(host, "two"), 5u);
}

TEST_F(SharedBudgetTest, AClosedModelThatIsStillReadGivesItsMemoryBackAtTheEnd) {
  StoreHost host(Total(6));
  ASSERT_TRUE(host.Open(directory_ / "root/one", Slots(4), SourceKind::kMapped).ok());
  ASSERT_TRUE(host.Open(directory_ / "root/two", Budget{}, SourceKind::kMapped).ok());
  std::shared_ptr<HostedModel> streamed = host.Find("one").value();
  ASSERT_TRUE(host.Close("one").ok());
  EXPECT_TRUE(absl::IsNotFound(host.Find("one").status()));
  // Nobody is given what it still has.
  EXPECT_EQ(Held(host, "two"), 2u);
  const auto three = host.Open(directory_ / "outside/three", Slots(2), SourceKind::kMapped);
  EXPECT_TRUE(absl::IsResourceExhausted(three.status())) << three.status();
  streamed.reset();
  for (const absl::Time end = absl::Now() + absl::Minutes(1);
       Held(host, "two") < 6 && absl::Now() < end; std::this_thread::yield()) {
  }
  EXPECT_EQ(Held(host, "two"), 6u);
  EXPECT_TRUE(host.Open(directory_ / "outside/three", Slots(2), SourceKind::kMapped).ok());
}

TEST_F(SharedBudgetTest, TheHostsEndWaitsForNobodyWhoStillReads) {
  std::shared_ptr<HostedModel> streamed;
  {
    StoreHost host(Total(6));
    streamed = host.Open(directory_ / "root/one", Slots(4), SourceKind::kMapped).value();
    ASSERT_TRUE(host.Close("one").ok());
  }
  EXPECT_TRUE(streamed->store->Stats().ok());
}

TEST_F(StoreHostTest, AStoreMadeElsewhereIsReadBackToo) {
  StoreHost::Options options;
  options.restart.directory = directory_ / "state";
  const auto make = [] {
    OpenStoreOptions store;
    store.budget = ParseBudget("100%").value();
    return MakeExpertStore(MemoryExpertSource::Random({}).value(), store, 1).value();
  };
  {
    StoreHost host(options);
    ASSERT_TRUE(host.Serve("far", make()).ok());
    const auto model = host.Find("far").value();
    EXPECT_EQ(model->restart->restored(), 0u);
    const auto batch = model->store->Acquire({{0, 1}, {1, 2}}, absl::InfiniteFuture()).value();
    EXPECT_TRUE(batch->Wait(0).ok() && batch->Wait(1).ok());
  }
  StoreHost host(options);
  ASSERT_TRUE(host.Serve("far", make()).ok());
  EXPECT_EQ(host.Find("far").value()->restart->restored(), 2u);
}

TEST_F(SharedBudgetTest, WhereThereIsNoRoomNothingChanges) {
  StoreHost host(Total(6));
  ASSERT_TRUE(host.Open(directory_ / "root/one", Slots(4), SourceKind::kMapped).ok());
  ASSERT_TRUE(host.Open(directory_ / "root/two", Budget{}, SourceKind::kMapped).ok());
  EXPECT_EQ(Held(host, "two"), 2u);
  const auto three = host.Open(directory_ / "outside/three", Slots(2), SourceKind::kMapped);
  EXPECT_TRUE(absl::IsResourceExhausted(three.status())) << three.status();
  const absl::Time soon = absl::Now() + absl::Minutes(1);
  EXPECT_TRUE(absl::IsResourceExhausted(host.Resize("one", Slots(6), soon)));
  EXPECT_TRUE(absl::IsResourceExhausted(host.ResizeTotal(Slots(4), soon)));
  EXPECT_TRUE(absl::IsNotFound(host.Resize("three", Slots(1), soon)));
  EXPECT_TRUE(absl::IsInvalidArgument(host.Resize("", Slots(1), soon)));
  EXPECT_EQ(Held(host, "one"), 4u);
  EXPECT_EQ(Held(host, "two"), 2u);
  EXPECT_EQ(host.List().size(), 2u);
}

TEST_F(SharedBudgetTest, WhatPinsHoldIsNotTakenAndAllIsAsItWas) {
  StoreHost host(Total(2));
  const auto one = host.Open(directory_ / "root/one", Budget{}, SourceKind::kMapped).value();
  std::vector<std::unique_ptr<ExpertBatch>> held;
  for (int32_t e = 0; e < 2; ++e) {
    held.push_back(one->store->Acquire({{0, e}}, absl::Now() + absl::Minutes(1)).value());
    ASSERT_TRUE(held.back()->Wait(0).ok());
  }
  const absl::Status status = host.Resize("one", Slots(1), absl::Now() + absl::Milliseconds(20));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(Held(host, "one"), 2u);
  held.clear();
  EXPECT_TRUE(host.Resize("one", Slots(1), absl::Now() + absl::Minutes(1)).ok());
  EXPECT_EQ(Held(host, "one"), 1u);
}

TEST(ShareBudgetTest, SharesAreEvenWithinWhatEachNeedsAndCanUse) {
  const Budget automatic;
  const Budget ten = {Budget::Kind::kBytes, 10, 0.0};
  const auto share = [](uint64_t total, std::vector<ShareRequest> requests) {
    return ShareBudget(total, requests).value_or(std::vector<uint64_t>{});
  };
  using Shares = std::vector<uint64_t>;
  EXPECT_EQ(share(100, {{"a", automatic, 1, 1000}}), Shares{100});
  EXPECT_EQ(share(100, {{"a", automatic, 1, 30}}), Shares{30});
  EXPECT_EQ(share(100, {{"a", automatic, 1, 30}, {"b", automatic, 1, 1000}}), (Shares{30, 70}));
  EXPECT_EQ(share(100, {{"a", automatic, 60, 1000}, {"b", automatic, 1, 1000}}), (Shares{60, 40}));
  EXPECT_EQ(share(100, {{"a", ten, 1, 1000}, {"b", automatic, 1, 1000}, {"c", automatic, 1, 1000}}),
            (Shares{10, 45, 45}));
  EXPECT_EQ(share(20, {{"a", automatic, 10, 1000}, {"b", automatic, 10, 1000}}), (Shares{10, 10}));
  const auto refused = ShareBudget(19, std::vector<ShareRequest>{{"a", automatic, 10, 1000},
                                                                 {"b", ten, 10, 1000}});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
}

TEST_F(StoreHostTest, AModelInUseIsNotClosed) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  const auto attached = host_.Attach("one", "test").value();
  EXPECT_TRUE(absl::IsFailedPrecondition(host_.Close("one")));
  attached.model->store->EndSession(attached.client);
  EXPECT_TRUE(host_.Close("one").ok());
  EXPECT_TRUE(absl::IsNotFound(host_.Find("").status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Attach("one", "test").status()));
}

TEST_F(StoreHostTest, AFailedOpeningLeavesRoomForAnother) {
  CorruptExpert(directory_ / "root/one", {0, 0});
  std::filesystem::remove(directory_ / "root/one/experts/registry.json");
  EXPECT_TRUE(absl::IsNotFound(OpenForClient(directory_ / "root/one").status()));
  EXPECT_TRUE(host_.List().empty());
  EXPECT_TRUE(OpenForClient(directory_ / "root/two").ok());
  EXPECT_EQ(host_.List().size(), 1u);
}

}  // namespace
}  // namespace odmoe
