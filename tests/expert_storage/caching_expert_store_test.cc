// What the caching store does beyond the contract of every store: prefetch's order and accounting,
// clients and leases, holding and waiting.
#include "services/expert_storage/caching_expert_store.h"

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

absl::Time Patient() { return absl::Now() + absl::Minutes(1); }

class CachingExpertStoreTest : public ::testing::Test {
 protected:
  void Open(uint64_t slots, bool prefetch = true) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = 4;
    shape.experts_per_layer = 8;
    auto source = std::make_unique<FaultyExpertSource>(MemoryExpertSource::Random(shape).value(),
                                                       faults_);
    CachingExpertStore::Options options;
    options.budget_bytes = slots * SlotBytes(source->catalog().max_expert_bytes());
    options.prefetch = prefetch;
    store_ = CachingExpertStore::Create(std::move(source), std::move(options)).value();
  }

  void Demand(std::vector<ExpertId> ids) {
    const auto batch = store_->Acquire(ids, Patient()).value();
    for (size_t i = 0; i < ids.size(); ++i) ASSERT_TRUE(batch->Wait(i).ok());
  }

  StoreStats AwaitStats(const std::function<bool(const StoreStats&)>& condition) {
    StoreStats stats;
    for (const absl::Time end = Patient(); absl::Now() < end; std::this_thread::yield()) {
      stats = store_->Stats().value();
      if (condition(stats)) return stats;
    }
    ADD_FAILURE() << "the statistics never got there";
    return stats;
  }

  int64_t Index(ExpertId id) const { return store_->catalog().IndexOf(id); }

  // A session's demand; its outcomes land in `outcomes`.
  struct Outcomes {
    absl::Mutex mutex;
    std::vector<absl::StatusOr<uint32_t>> slots;
    bool Await(size_t count) {
      absl::MutexLock lock(&mutex);
      const auto enough = [this, count] { return slots.size() >= count; };
      return mutex.AwaitWithTimeout(absl::Condition(&enough), absl::Minutes(1));
    }
  };
  void Serve(const std::shared_ptr<StoreClient>& client, std::vector<ExpertId> ids,
             Outcomes& outcomes, absl::Time deadline = absl::InfiniteFuture()) {
    odmoe::Demand demand;
    demand.client = client;
    for (ExpertId id : ids) demand.experts.push_back(Index(id));
    demand.deadline = deadline;
    demand.deliver = [&outcomes](size_t, absl::StatusOr<uint32_t> slot) {
      absl::MutexLock lock(&outcomes.mutex);
      outcomes.slots.push_back(std::move(slot));
    };
    store_->Serve(std::move(demand));
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  std::unique_ptr<CachingExpertStore> store_;
};

TEST_F(CachingExpertStoreTest, PrefetchesAreReadOneAtATime) {
  Open(16);
  faults_->Hold();
  store_->Prefetch({{0, 0}, {0, 1}, {0, 2}});
  ASSERT_TRUE(faults_->AwaitHeld(1));
  EXPECT_EQ(faults_->reads(), 1u);
  faults_->Release();
  AwaitStats([](const StoreStats& s) { return s.prefetch_reads == 3; });
}

TEST_F(CachingExpertStoreTest, ADemandDoesNotQueueBehindPrefetches) {
  Open(16);
  faults_->Hold();
  store_->Prefetch({{1, 0}, {1, 1}, {1, 2}, {1, 3}});
  ASSERT_TRUE(faults_->AwaitHeld(1));
  const auto batch = store_->Acquire({{0, 5}}, Patient()).value();
  // The one prefetch under way, and the demand beside it.
  ASSERT_TRUE(faults_->AwaitHeld(2));
  EXPECT_EQ(faults_->reads({0, 5}), 1u);
  EXPECT_EQ(faults_->reads(), 2u);
  faults_->Release();
  EXPECT_TRUE(batch->Wait(0).ok());
}

TEST_F(CachingExpertStoreTest, NoPrefetchStartsWhileADemandIsBeingRead) {
  Open(16);
  faults_->Hold();
  const auto batch = store_->Acquire({{0, 5}}, Patient()).value();
  ASSERT_TRUE(faults_->AwaitHeld(1));
  store_->Prefetch({{1, 0}});
  EXPECT_EQ(faults_->reads({1, 0}), 0u);
  faults_->Release();
  EXPECT_TRUE(batch->Wait(0).ok());
  AwaitStats([](const StoreStats& s) { return s.prefetch_reads == 1; });
}

TEST_F(CachingExpertStoreTest, APrefetchWhoseLayerWasDemandedMeanwhileIsDropped) {
  Open(16);
  faults_->Hold();
  const auto batch = store_->Acquire({{0, 0}}, Patient()).value();
  ASSERT_TRUE(faults_->AwaitHeld(1));
  store_->Prefetch({{1, 3}, {2, 3}});
  const auto next_layer = store_->Acquire({{1, 0}}, Patient()).value();
  faults_->Release();
  EXPECT_TRUE(next_layer->Wait(0).ok());
  const StoreStats stats =
      AwaitStats([](const StoreStats& s) { return s.prefetch_reads + s.prefetch_dropped == 2; });
  EXPECT_EQ(stats.prefetch_dropped, 1u);
  EXPECT_EQ(faults_->reads({1, 3}), 0u);
  EXPECT_EQ(faults_->reads({2, 3}), 1u);
}

TEST_F(CachingExpertStoreTest, AHitOfTheLayerMakesItsPrefetchesLateToo) {
  Open(16);
  Demand({{1, 0}});
  faults_->Hold();
  const auto batch = store_->Acquire({{0, 0}}, Patient()).value();
  ASSERT_TRUE(faults_->AwaitHeld(1));
  store_->Prefetch({{1, 3}});
  EXPECT_EQ(store_->Acquire({{1, 0}}, Patient()).value()->hits(), 1u);
  faults_->Release();
  AwaitStats([](const StoreStats& s) { return s.prefetch_dropped == 1; });
  EXPECT_EQ(faults_->reads({1, 3}), 0u);
}

TEST_F(CachingExpertStoreTest, ADemandThatMeetsItsPrefetchUnderWayJoinsIt) {
  Open(16);
  faults_->Hold();
  store_->Prefetch({{0, 0}});
  ASSERT_TRUE(faults_->AwaitHeld(1));
  const auto batch = store_->Acquire({{0, 0}}, Patient()).value();
  faults_->Release();
  EXPECT_TRUE(batch->Wait(0).ok());
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(faults_->reads(), 1u);
  EXPECT_EQ(stats.shared_misses, 1u);
  EXPECT_EQ(stats.prefetch_reads, 1u);
  EXPECT_EQ(stats.prefetch_useful, 1u);
}

TEST_F(CachingExpertStoreTest, EveryWishEndsReadOrDropped) {
  Open(6);
  for (int round = 0; round < 50; ++round) {
    store_->Prefetch({{(round + 1) % 4, round % 8}, {(round + 2) % 4, (round * 3) % 8}});
    Demand({{round % 4, (round * 5) % 8}});
  }
  // More than are taken at once.
  std::vector<ExpertId> many;
  for (int32_t i = 0; i < 200; ++i) many.push_back({i % 4, i % 8});
  store_->Prefetch(many);
  const StoreStats stats = AwaitStats([](const StoreStats& s) {
    return s.prefetch_reads + s.prefetch_dropped == s.prefetches;
  });
  EXPECT_EQ(stats.prefetches, 300u);
  EXPECT_LE(stats.prefetch_useful + stats.prefetch_wasted, stats.prefetch_reads);
  // Some were given up as late while they were being read.
  EXPECT_LE(stats.reads, faults_->reads());
  EXPECT_GE(stats.reads + stats.prefetch_dropped, faults_->reads());
}

TEST_F(CachingExpertStoreTest, AFailedPrefetchCostsNothingButItself) {
  Open(8);
  faults_->Fail({0, 0}, absl::DataLossError("bad sector"));
  store_->Prefetch({{0, 0}, {0, 1}});
  const StoreStats stats =
      AwaitStats([](const StoreStats& s) { return s.prefetch_reads + s.prefetch_dropped == 2; });
  EXPECT_EQ(stats.prefetch_dropped, 1u);
  EXPECT_EQ(stats.read_failures, 1u);
  EXPECT_EQ(stats.resident_experts, 1u);
}

TEST_F(CachingExpertStoreTest, WithoutPrefetchNothingIsReadAhead) {
  Open(8, /*prefetch=*/false);
  store_->Prefetch({{0, 0}, {0, 1}});
  Demand({{1, 0}});
  EXPECT_EQ(store_->Stats()->prefetches, 0u);
  EXPECT_EQ(faults_->reads(), 1u);
}

TEST_F(CachingExpertStoreTest, ASessionsEndDropsItsPinsDemandsAndWishes) {
  Open(8);
  const auto client = store_->AttachClient("test").value();
  EXPECT_EQ(store_->Stats()->clients, 1u);
  Outcomes outcomes;
  Serve(client, {{0, 0}, {0, 1}}, outcomes);
  ASSERT_TRUE(outcomes.Await(2));
  EXPECT_EQ(store_->Stats()->pinned_experts, 2u);
  faults_->Hold();
  Serve(client, {{0, 2}}, outcomes);
  store_->PrefetchFor(client, {Index({1, 0}), Index({1, 1})});
  store_->EndSession(client);
  const StoreStats stats = store_->Stats().value();
  EXPECT_EQ(stats.clients, 0u);
  EXPECT_EQ(stats.pinned_experts, 0u);
  EXPECT_EQ(stats.prefetch_dropped, 2u);
  faults_->Release();
  AwaitStats([](const StoreStats& s) { return s.resident_experts == 3; });
  EXPECT_EQ(outcomes.slots.size(), 2u);
  store_->EndSession(client);
}

TEST_F(CachingExpertStoreTest, WhileAProcessHasItsPageMappedItsPinsHold) {
  Open(2);
  const auto client = store_->AttachClient("test").value();
  ASSERT_TRUE(store_->BeginMapping(client));
  Outcomes outcomes;
  Serve(client, {{0, 0}}, outcomes);
  ASSERT_TRUE(outcomes.Await(1));
  store_->EndSession(client);
  // The session is over, but the process may be reading still.
  EXPECT_EQ(store_->Stats()->pinned_experts, 1u);
  for (int32_t e = 1; e < 6; ++e) Demand({{0, e}});
  EXPECT_EQ(store_->Acquire({{0, 0}}, Patient()).value()->hits(), 1u);
  store_->EndMapping(client);
  EXPECT_EQ(store_->Stats()->pinned_experts, 0u);
}

TEST_F(CachingExpertStoreTest, AnEndedSessionGetsNoMapping) {
  Open(2);
  const auto client = store_->AttachClient("test").value();
  store_->EndSession(client);
  EXPECT_FALSE(store_->BeginMapping(client));
}

TEST_F(CachingExpertStoreTest, CountersOfAnEndedSessionStay) {
  Open(8);
  const auto client = store_->AttachClient("test").value();
  PinPage page = client->page;
  page.CountHits(7);
  page.CountStall(900);
  store_->EndSession(client);
  EXPECT_EQ(store_->Stats()->hits, 7u);
  EXPECT_EQ(store_->Stats()->stall_ns, 900u);
}

TEST_F(CachingExpertStoreTest, ThereIsAnEndToClients) {
  Open(2);
  std::vector<std::shared_ptr<StoreClient>> clients;
  absl::Status refused;
  for (int i = 0; i < 1000 && refused.ok(); ++i) {
    auto client = store_->AttachClient("test");
    if (client.ok()) clients.push_back(*client);
    refused = client.status();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  store_->EndSession(clients.front());
  EXPECT_TRUE(store_->AttachClient("test").ok());
}

TEST_F(CachingExpertStoreTest, TwoCallersWithFullBatchesNeverWaitForOneAnother) {
  Open(8);
  ASSERT_EQ(store_->max_batch(), 4u);
  std::vector<std::thread> callers;
  for (int32_t caller = 0; caller < 2; ++caller) {
    callers.emplace_back([this, caller] {
      for (int32_t round = 0; round < 200; ++round) {
        std::vector<ExpertId> ids;
        for (int32_t i = 0; i < 4; ++i) ids.push_back({(round + caller) % 4, (round + i) % 8});
        const auto batch = store_->Acquire(ids, Patient()).value();
        for (size_t i = 0; i < ids.size(); ++i) {
          const auto view = batch->Wait(i);
          ASSERT_TRUE(view.ok()) << view.status();
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST_F(CachingExpertStoreTest, BatchesThatWaitForOneAnotherEndAtTheirDeadlines) {
  Open(4);
  const auto one = store_->Acquire({{0, 0}, {0, 1}}, Patient()).value();
  const auto two = store_->Acquire({{0, 2}, {0, 3}}, Patient()).value();
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(one->Wait(i).ok() && two->Wait(i).ok());
  // Each holds two and wants one more: neither can have it before the other lets go.
  const absl::Time deadline = absl::Now() + absl::Milliseconds(30);
  const auto more_one = store_->Acquire({{1, 0}}, deadline).value();
  const auto more_two = store_->Acquire({{1, 1}}, deadline).value();
  EXPECT_TRUE(absl::IsResourceExhausted(more_one->Wait(0).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(more_two->Wait(0).status()));
}

TEST_F(CachingExpertStoreTest, ARemoteDemandWithoutASlotIsAnsweredAtItsDeadline) {
  Open(1);
  const auto held = store_->Acquire({{0, 0}}, Patient()).value();
  ASSERT_TRUE(held->Wait(0).ok());
  const auto client = store_->AttachClient("test").value();
  Outcomes outcomes;
  Serve(client, {{0, 1}}, outcomes, absl::Now() + absl::Milliseconds(20));
  ASSERT_TRUE(outcomes.Await(1));
  EXPECT_TRUE(absl::IsResourceExhausted(outcomes.slots[0].status())) << outcomes.slots[0].status();
  EXPECT_EQ(faults_->reads({0, 1}), 0u);
}

TEST_F(CachingExpertStoreTest, AnEpochIsNeverUsedTwice) {
  Open(2);
  const int64_t first = store_->epoch();
  store_.reset();
  Open(2);
  EXPECT_NE(store_->epoch(), first);
}

}  // namespace
}  // namespace odmoe
