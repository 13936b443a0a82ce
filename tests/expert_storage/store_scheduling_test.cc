// How the store shares the disk and the slots: tenants, clients that stall, reads that hang or find
// no memory, prefetches that come too late. By events, with a source whose reads the test ends.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/experts/pinned_batch.h"
#include "services/core/experts/residency_protocol.h"
#include "services/expert_storage/caching_expert_store.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kLayers = 4;
constexpr int32_t kExpertsPerLayer = 32;

class StoreSchedulingTest : public ::testing::Test {
 protected:
  struct Given {
    uint64_t slots = 64;
    uint64_t demand = 4;
    uint64_t experts_under_way = 4;  // that the source wants
    absl::Duration stalled_after = absl::Hours(1);
    std::vector<std::string> tenants;
    std::shared_ptr<SharedDisks> disks;
  };

  void Open(const Given& given) { store_ = Make(given, faults_); }
  std::unique_ptr<CachingExpertStore> Make(const Given& given,
                                           const std::shared_ptr<ReadFaults>& faults) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = kLayers;
    shape.experts_per_layer = kExpertsPerLayer;
    shape.dim = shape.ffn = 32;
    auto memory = MemoryExpertSource::Random(shape).value();
    expert_bytes_ = memory->catalog().max_expert_bytes();
    auto source = std::make_unique<FaultyExpertSource>(std::move(memory), faults,
                                                       given.experts_under_way * expert_bytes_);
    CachingExpertStore::Options options;
    options.budget_bytes = given.slots * SlotBytes(expert_bytes_);
    options.demand = given.demand;
    options.stalled_after = given.stalled_after;
    std::vector<TenantSpec> specs;
    for (const std::string& text : given.tenants) specs.push_back(ParseTenant(text).value());
    options.tenants = TenantTable::Create(specs, false).value();
    options.shared_disks = given.disks;
    options.disks = {1};
    return CachingExpertStore::Create(std::move(source), std::move(options)).value();
  }

  std::shared_ptr<StoreClient> Attach(const std::string& tenant) {
    return store_->AttachClient("client of " + tenant, tenant).value();
  }

  // What a demand has brought so far.
  struct Outcomes {
    absl::Mutex mutex;
    std::vector<absl::StatusOr<uint32_t>> slots;
    size_t count() {
      absl::MutexLock lock(&mutex);
      return slots.size();
    }
    void Await(size_t wanted) {
      absl::MutexLock lock(&mutex);
      const auto enough = [this, wanted] { return slots.size() >= wanted; };
      ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&enough), absl::Minutes(1)));
    }
    absl::Status status(size_t i) {
      absl::MutexLock lock(&mutex);
      return slots[i].status();
    }
  };

  void Ask(const std::shared_ptr<StoreClient>& client, std::vector<ExpertId> ids,
           Outcomes& outcomes, absl::Duration timeout = absl::Minutes(1)) {
    AskOf(*store_, client, ids, outcomes, timeout);
  }
  void AskOf(CachingExpertStore& store, const std::shared_ptr<StoreClient>& client,
             const std::vector<ExpertId>& ids, Outcomes& outcomes,
             absl::Duration timeout = absl::Minutes(1)) {
    Demand demand;
    demand.client = client;
    for (ExpertId id : ids) demand.experts.push_back(store.catalog().IndexOf(id));
    demand.deadline = absl::Now() + timeout;
    demand.deliver = [&outcomes](size_t, absl::StatusOr<uint32_t> slot) {
      absl::MutexLock lock(&outcomes.mutex);
      outcomes.slots.push_back(std::move(slot));
    };
    store.Serve(std::move(demand));
  }
  // As the client's process would, once it has read the outcomes.
  void DropPins(const std::shared_ptr<StoreClient>& client, Outcomes& outcomes) {
    absl::MutexLock lock(&outcomes.mutex);
    PinPage page = client->page;
    for (const auto& slot : outcomes.slots) {
      if (slot.ok()) page.Unpin(*slot);
    }
    outcomes.slots.clear();
  }

  // Ends held reads one by one until `until`; how many.
  size_t EndReadsUntil(const std::function<bool()>& until) {
    size_t ended = 0;
    for (; !until() && ended < 1000; ++ended) {
      if (!faults_->AwaitHeld(1)) return ended;
      faults_->ReleaseOldest();
    }
    return ended;
  }

  StoreStats AwaitStats(const std::function<bool(const StoreStats&)>& condition) {
    return AwaitStatsOf(*store_, condition);
  }
  StoreStats AwaitStatsOf(CachingExpertStore& store,
                          const std::function<bool(const StoreStats&)>& condition) {
    StoreStats stats;
    for (const absl::Time end = absl::Now() + absl::Minutes(1); absl::Now() < end;
         std::this_thread::yield()) {
      stats = store.Stats().value();
      if (condition(stats)) return stats;
    }
    ADD_FAILURE() << "the statistics never got there";
    return stats;
  }

  static std::vector<ExpertId> Layer(int32_t layer, int32_t first, int32_t count) {
    std::vector<ExpertId> ids;
    for (int32_t e = 0; e < count; ++e) ids.push_back({layer, first + e});
    return ids;
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  uint64_t expert_bytes_ = 0;
  std::unique_ptr<CachingExpertStore> store_;
};

TEST_F(StoreSchedulingTest, NoMoreIsUnderWayThanTheSourceWants) {
  Open({});
  faults_->Hold();
  Outcomes outcomes;
  Ask(Attach("a"), Layer(0, 0, 20), outcomes);
  ASSERT_TRUE(faults_->AwaitHeld(4));
  EXPECT_EQ(faults_->reads(), 4u);
  faults_->ReleaseOldest();
  ASSERT_TRUE(faults_->AwaitHeld(4));
  EXPECT_EQ(faults_->reads(), 5u);
  faults_->Release();
  outcomes.Await(20);
}

// A asks for a hundred experts, again and again; B for a layer's four. Without tenants B's would
// stand behind A's hundred.
TEST_F(StoreSchedulingTest, ATenantsWaitIsBoundedByItsShareNotByTheOthersQueue) {
  Open({.slots = 128, .tenants = {"a", "b", "c:disk=3"}});
  faults_->Hold();
  const auto thrasher = Attach("a");
  const auto quiet = Attach("b");
  Outcomes flood;
  for (int32_t layer = 0; layer < 3; ++layer) Ask(thrasher, Layer(layer, 0, 32), flood);
  Outcomes wanted;
  Ask(quiet, Layer(3, 0, 4), wanted);
  // Four were under way, then at most a turn of A's four may come first, or one between.
  const size_t ended = EndReadsUntil([&] { return wanted.count() == 4; });
  EXPECT_LE(ended, 4u + 4u + 4u);
  EXPECT_LE(flood.count(), 8u);
  // A layer of B's is read together, but for threads that begin reads a little out of order.
  const std::vector<ExpertId> order = faults_->order();
  const auto of_layer_3 = [](ExpertId id) { return id.layer == 3; };
  const auto first = std::find_if(order.begin(), order.end(), of_layer_3);
  const auto last = std::find_if(order.rbegin(), order.rend(), of_layer_3).base();
  EXPECT_EQ(std::count_if(first, last, of_layer_3), 4);
  EXPECT_LE(last - first, 4 + 2);

  // C has three times A's share.
  Outcomes more;
  Ask(Attach("c"), Layer(3, 4, 24), more);
  const size_t before = flood.count();
  EndReadsUntil([&] { return more.count() == 24; });
  EXPECT_LE(flood.count() - before, 24 / 3 + 8u);
  faults_->Release();
  flood.Await(96);
}

TEST_F(StoreSchedulingTest, TwoModelsOnOneDiskHaveTheirSharesOfItUnderWay) {
  const Given given = {.slots = 128, .experts_under_way = 8,
                       .disks = std::make_shared<SharedDisks>()};
  Open(given);
  const auto other_faults = std::make_shared<ReadFaults>();
  const auto other = Make(given, other_faults);
  faults_->Hold();
  other_faults->Hold();
  Outcomes flood;
  for (int32_t layer = 0; layer < 2; ++layer) Ask(Attach(""), Layer(layer, 0, 32), flood);
  ASSERT_TRUE(faults_->AwaitHeld(8));
  // The other model need not wait for a turn, and gets half of what the disk is to have.
  Outcomes wanted;
  AskOf(*other, other->AttachClient("other").value(), Layer(0, 0, 32), wanted);
  ASSERT_TRUE(other_faults->AwaitHeld(4));
  EXPECT_EQ(other_faults->reads(), 4u);
  // And the first one no more than its half, once what was there before is done.
  for (int i = 0; i < 5; ++i) faults_->ReleaseOldest();
  ASSERT_TRUE(faults_->AwaitHeld(4));
  EXPECT_EQ(faults_->reads(), 9u);
  // Alone again, it has all.
  other_faults->Release();
  wanted.Await(32);
  AwaitStatsOf(*other, [](const StoreStats& stats) { return stats.reads == 32; });
  faults_->ReleaseOldest();
  ASSERT_TRUE(faults_->AwaitHeld(8));
  // Meanwhile nothing that nobody waits for is read by the other; afterwards it is.
  other->Prefetch({{1, 0}});
  EXPECT_EQ(other->Telemetry(false).queues.prefetches, 1u);
  faults_->Release();
  flood.Await(64);
  AwaitStatsOf(*other, [](const StoreStats& stats) { return stats.prefetch_reads == 1; });
}

TEST_F(StoreSchedulingTest, AnExpertThatTwoTenantsWaitForIsReadOnceAtTheEarlierTurn) {
  Open({.slots = 128, .tenants = {"a", "b"}});
  faults_->Hold();
  Outcomes flood;
  Outcomes wanted;
  for (int32_t layer = 0; layer < 3; ++layer) Ask(Attach("a"), Layer(layer, 0, 32), flood);
  // The last that A will get, were it not for B.
  Ask(Attach("b"), {{2, 31}, {2, 30}}, wanted);
  EXPECT_LE(EndReadsUntil([&] { return wanted.count() == 2; }), 12u);
  faults_->Release();
  flood.Await(96);
  EXPECT_EQ(faults_->reads({2, 31}), 1u);
  EXPECT_EQ(store_->Stats()->shared_misses, 2u);
}

TEST_F(StoreSchedulingTest, AQuotaHoldsAndBelowALayersDemandItIsRefused) {
  Open({.slots = 40, .tenants = {"a:cache=25%"}});
  const auto client = Attach("a");
  EXPECT_EQ(store_->MaxBatchOf(client->tenant), 5u);
  Outcomes other;
  Ask(Attach(""), Layer(3, 0, 20), other);
  other.Await(20);
  for (int32_t e = 0; e < 32; e += 4) {
    Outcomes outcomes;
    Ask(client, Layer(0, e, 4), outcomes);
    outcomes.Await(4);
    DropPins(client, outcomes);
  }
  // Ten at A's charge beside the other's twenty.
  EXPECT_EQ(store_->Stats()->resident_experts, 30u);
  store_.reset();

  MemoryExpertSource::RandomOptions shape;
  CachingExpertStore::Options options;
  auto source = MemoryExpertSource::Random(shape).value();
  options.budget_bytes = 8 * SlotBytes(source->catalog().max_expert_bytes());
  options.demand = 3;
  options.tenants = TenantTable::Create({{ParseTenant("a:cache=25%").value()}}, false).value();
  const auto refused = CachingExpertStore::Create(std::move(source), std::move(options));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("one layer demands 3"));
}

TEST_F(StoreSchedulingTest, AReadThatHangsFailsAloneAtItsDeadlineAndOthersGoOn) {
  Open({.slots = 16, .experts_under_way = 1, .stalled_after = absl::Milliseconds(1)});
  faults_->Hang({0, 0});
  faults_->Hang({0, 1});
  const auto client = Attach("a");
  Outcomes hung;
  Outcomes fine;
  Ask(client, {{0, 0}, {0, 1}}, hung, absl::Milliseconds(200));
  // The source wants but one under way, and each of the two would be it for ever.
  const auto other = Attach("b");
  Ask(other, Layer(1, 0, 6), fine);
  fine.Await(6);
  hung.Await(2);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(hung.status(i))) << hung.status(i);
    EXPECT_TRUE(fine.status(i).ok());
  }
  // Asked for again it is read again, in another slot, beside the read that hangs.
  Outcomes again;
  Ask(client, {{0, 0}}, again);
  ASSERT_TRUE(faults_->AwaitHeld(3));
  EXPECT_EQ(faults_->reads({0, 0}), 2u);
  // The slots of those that hang stay out of use: 16 - 3 are left to others.
  DropPins(other, fine);
  Outcomes rest;
  Ask(other, Layer(2, 0, 8), rest);
  rest.Await(8);
  EXPECT_LE(store_->Stats()->resident_experts, 13u);
  faults_->Release();
  again.Await(1);
  EXPECT_TRUE(again.status(0).ok());
  // Whichever came first stays, once.
  AwaitStats([](const StoreStats& stats) { return stats.reads == 17; });
  EXPECT_EQ(store_->Stats()->pinned_experts, 9u);
}

TEST_F(StoreSchedulingTest, WhatMayHangFollowsTheBudget) {
  Open({.slots = 4, .experts_under_way = 1, .stalled_after = absl::Milliseconds(1)});
  ASSERT_TRUE(store_->Resize(16 * SlotBytes(expert_bytes_), absl::Now() + absl::Minutes(1)).ok());
  Outcomes hung;
  Outcomes fine;
  for (int32_t e = 0; e < 3; ++e) faults_->Hang({0, e});
  Ask(Attach("a"), Layer(0, 0, 3), hung);
  // Of four slots one might hang, of sixteen four.
  Ask(Attach("b"), Layer(1, 0, 6), fine);
  fine.Await(6);
  for (size_t i = 0; i < 6; ++i) EXPECT_TRUE(fine.status(i).ok());
  faults_->Release();
  hung.Await(3);
}

TEST_F(StoreSchedulingTest, AClientThatPinsWhatItMayNotIsShutOutOnceOthersStarve) {
  Open({.slots = 16});
  const auto greedy = Attach("a");
  absl::Mutex mutex;
  absl::Status why;
  greedy->expel = [&](absl::Status status) {
    absl::MutexLock lock(&mutex);
    why = std::move(status);
  };
  ASSERT_TRUE(store_->BeginMapping(greedy));
  for (int32_t e = 0; e < 16; ++e) {
    ASSERT_TRUE(store_->Acquire({{0, e}}, absl::Now() + absl::Minutes(1)).value()->Wait(0).ok());
  }
  // Three quarters it may, so nothing happens to it while there is a slot for others.
  PinPage page = greedy->page;
  const auto pin = [&](int32_t e) {
    page.Pin(*TryPin(ResidencyTable::Attach(store_->table_region().bytes()).value(), page,
                     store_->catalog().IndexOf({0, e})));
  };
  for (int32_t e = 0; e < 12; ++e) pin(e);
  ASSERT_TRUE(store_->Acquire({{1, 0}}, absl::Now() + absl::Minutes(1)).value()->Wait(0).ok());
  EXPECT_EQ(store_->Stats()->clients, 1u);
  for (int32_t e = 12; e < 16; ++e) {
    if (store_->Resident({0, e})) pin(e);
  }
  const auto held = store_->Acquire({{1, 0}}, absl::Now() + absl::Minutes(1)).value();
  Outcomes outcomes;
  Ask(Attach("b"), {{1, 1}}, outcomes);
  outcomes.Await(1);
  EXPECT_TRUE(outcomes.status(0).ok()) << outcomes.status(0);
  EXPECT_EQ(store_->Stats()->clients, 1u);
  const auto told = [&] { return !why.ok(); };
  absl::MutexLock lock(&mutex);
  ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&told), absl::Minutes(1)));
  EXPECT_TRUE(absl::IsResourceExhausted(why));
  EXPECT_THAT(std::string(why.message()), HasSubstr("pins 15 slots of the 12 that it may"));
}

TEST_F(StoreSchedulingTest, WhoHoldsAllItMayAsksForHitsToo) {
  Open({.slots = 16});
  const auto client = Attach("a");
  std::vector<ExpertId> all = Layer(0, 0, 16);
  for (ExpertId id : all) {
    ASSERT_TRUE(store_->Acquire({id}, absl::Now() + absl::Minutes(1)).value()->Wait(0).ok());
  }
  struct Owner final : BatchOwner {
    absl::Status Overdue(int64_t) const override { return absl::DeadlineExceededError(""); }
    void BatchReleased(const MissBoard*, bool) override {}
  } owner;
  const ArenaView view = {&store_->catalog(), store_->arena().base(), store_->arena().shape(),
                          nullptr, ResidencyTable::Attach(store_->table_region().bytes()).value(),
                          client->page};
  const auto pin = [&](int32_t first, int32_t count) {
    return PinnedBatch::PinResident(view, owner, Layer(0, first, count), absl::InfiniteFuture(), 8)
        .value();
  };
  auto first = pin(0, 8);
  const auto second = pin(6, 6);
  EXPECT_EQ(first->hits(), 8u);
  EXPECT_EQ(second->hits(), 6u);  // two of them the first's: twelve in all
  EXPECT_EQ(client->page.held(), 12u);
  const auto third = pin(14, 1);
  EXPECT_EQ(third->hits(), 0u);
  EXPECT_THAT(third->missing(), ::testing::ElementsAre(14));
  // The store gives it once the client has let go of something.
  Outcomes outcomes;
  Ask(client, {{0, 14}}, outcomes);
  EXPECT_EQ(outcomes.count(), 0u);
  first.reset();
  outcomes.Await(1);
  EXPECT_TRUE(outcomes.status(0).ok());
  EXPECT_EQ(faults_->reads(), 16u);
}

TEST_F(StoreSchedulingTest, AFullRingOfAccessesIsTakenInParts) {
  Open({});
  const auto client = Attach("a");
  PinPage page = client->page;
  for (uint32_t i = 0; i < kAccessRingEntries; ++i) page.RecordAccess(i % 32);
  Outcomes outcomes;
  Ask(client, {{1, 0}}, outcomes);
  outcomes.Await(1);
  const auto demands = [this] {
    uint64_t sum = 0;
    for (const LayerTelemetry& layer : store_->Telemetry(false).layers) sum += layer.demands;
    return sum;
  };
  while (demands() < kAccessRingEntries + 1) std::this_thread::yield();
  EXPECT_EQ(demands(), kAccessRingEntries + 1);
}

TEST_F(StoreSchedulingTest, AReadThatFindsNoMemoryIsTriedAgainUntilTheDeadline) {
  Open({});
  faults_->Fail({0, 0}, absl::ResourceExhaustedError("no memory for the request"));
  const auto client = Attach("a");
  Outcomes outcomes;
  Ask(client, {{0, 0}, {0, 1}}, outcomes);
  while (faults_->reads({0, 0}) < 3) std::this_thread::yield();
  EXPECT_EQ(outcomes.count(), 1u);
  faults_->Heal({0, 0});
  outcomes.Await(2);
  EXPECT_TRUE(outcomes.status(1).ok());

  faults_->Fail({1, 0}, absl::ResourceExhaustedError("no memory for the request"));
  Outcomes failed;
  Ask(client, {{1, 0}}, failed, absl::Milliseconds(50));
  failed.Await(1);
  EXPECT_TRUE(absl::IsResourceExhausted(failed.status(0)));
  EXPECT_THAT(std::string(failed.status(0).message()), HasSubstr("no memory for the request"));
  // A device's error is not tried again, and is not remembered either.
  faults_->Fail({2, 0}, absl::DataLossError("EIO"));
  Outcomes lost;
  Ask(client, {{2, 0}}, lost);
  lost.Await(1);
  EXPECT_TRUE(absl::IsDataLoss(lost.status(0)));
  EXPECT_EQ(faults_->reads({2, 0}), 1u);
  faults_->Heal({2, 0});
  Ask(client, {{2, 0}}, lost);
  lost.Await(2);
  EXPECT_TRUE(lost.status(1).ok());
}

TEST_F(StoreSchedulingTest, AClientThatStallsHoldsNoMoreThanItsCap) {
  Open({.slots = 32});
  ASSERT_EQ(store_->max_batch(), 16u);
  const auto stalled = Attach("a");
  Outcomes held;
  for (int32_t e = 0; e < 32; e += 4) {
    stalled->undelivered += 4;  // nobody reads what is sent
    Ask(stalled, Layer(0, e, 4), held, e < 16 ? absl::Minutes(1) : absl::Milliseconds(100));
  }
  held.Await(32);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(held.status(i).code(),
              i < 16 ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
  }
  EXPECT_THAT(std::string(held.status(31).message()), HasSubstr("client of a"));
  EXPECT_EQ(store_->Stats()->pinned_experts, 16u);
  // So the others have what they need.
  const auto batch = store_->Acquire(Layer(1, 0, 16), absl::Now() + absl::Minutes(1)).value();
  for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(batch->Wait(i).ok());
  // What waits is served when it lets go, in order.
  Outcomes more;
  Ask(stalled, Layer(2, 0, 4), more);
  Ask(stalled, Layer(3, 0, 4), more);
  EXPECT_EQ(more.count(), 0u);
  DropPins(stalled, held);
  more.Await(8);
  EXPECT_TRUE(more.status(7).ok());
  // More than it may ever hold is refused at once.
  Outcomes refused;
  Ask(stalled, Layer(0, 0, 25), refused);
  ASSERT_EQ(refused.count(), 25u);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status(24)));
  // A demand that is deferred goes with its session.
  stalled->undelivered = 0;
  Ask(stalled, Layer(0, 0, 16), held);
  store_->EndSession(stalled);
  AwaitStats([](const StoreStats& stats) { return stats.pinned_experts == 16; });
}

TEST_F(StoreSchedulingTest, APrefetchUnderWayIsGivenUpOnceItIsLate) {
  Open({});
  faults_->Hold();
  const auto client = Attach("a");
  const int64_t wish = store_->catalog().IndexOf({1, 0});
  store_->PrefetchFor(client, {wish});
  ASSERT_TRUE(faults_->AwaitHeld(1));
  Outcomes outcomes;
  Ask(client, {{1, 5}}, outcomes);  // its layer, but another expert
  ASSERT_TRUE(faults_->AwaitHeld(2));
  EXPECT_TRUE(faults_->control({1, 0})->cancelled());
  EXPECT_EQ(faults_->control({1, 5})->urgency(), ReadControl::Urgency::kDemand);
  // Demanded after all, before the source noticed: it is read.
  Ask(client, {{1, 0}}, outcomes);
  faults_->Release();
  outcomes.Await(2);
  EXPECT_TRUE(outcomes.status(0).ok() && outcomes.status(1).ok());
  const PrefetchJudge::Counters counters = store_->prefetch_counters();
  EXPECT_EQ(counters.late_bytes, expert_bytes_);
  EXPECT_EQ(counters.delayed_demands, 1u);
}

TEST_F(StoreSchedulingTest, WishesOfAFinishedPassAreDroppedAndBytesAreCounted) {
  Open({});
  const auto client = Attach("a");
  Outcomes outcomes;
  Ask(client, {{0, 0}}, outcomes);
  outcomes.Await(1);
  faults_->Hold();
  Ask(client, {{1, 0}}, outcomes);
  ASSERT_TRUE(faults_->AwaitHeld(1));
  const auto index = [this](ExpertId id) { return store_->catalog().IndexOf(id); };
  // For this pass, and for the next one.
  store_->PrefetchFor(client, {index({3, 1}), index({0, 1})});
  Ask(client, {{0, 2}}, outcomes);  // a new token
  ASSERT_TRUE(faults_->AwaitHeld(2));
  store_->PrefetchFor(client, {index({2, 1})});
  faults_->Release();
  outcomes.Await(3);
  const StoreStats stats = AwaitStats(
      [](const StoreStats& s) { return s.prefetch_dropped + s.prefetch_reads == 3; });
  EXPECT_EQ(faults_->reads({3, 1}), 0u);
  EXPECT_EQ(faults_->reads({0, 1}), 0u);  // layer 0 has been demanded since
  EXPECT_EQ(faults_->reads({2, 1}), 1u);
  EXPECT_EQ(stats.prefetch_dropped, 2u);
  Ask(client, {{2, 1}}, outcomes);
  outcomes.Await(4);
  EXPECT_EQ(store_->prefetch_counters().useful_bytes, expert_bytes_);
}

TEST_F(StoreSchedulingTest, PrefetchingThatNeverHelpsShutsItselfOff) {
  Open({.slots = 16, .demand = 2});
  const auto client = Attach("a");
  Outcomes outcomes;
  uint64_t wishes = 0;
  for (int32_t i = 0; store_->prefetch_counters().shut_offs == 0 && i < 2000; ++i) {
    // Never what is demanded next.
    const int32_t layer = i % kLayers;
    Ask(client, {{layer, i / kLayers % 16}}, outcomes);
    outcomes.Await(1);
    DropPins(client, outcomes);
    store_->PrefetchFor(client, {store_->catalog().IndexOf({(layer + 1) % kLayers, 16 + i % 16})});
    ++wishes;
    AwaitStats([&](const StoreStats& s) {
      return s.prefetch_reads + s.prefetch_dropped == wishes;
    });
  }
  EXPECT_EQ(store_->prefetch_counters().shut_offs, 1u);
  EXPECT_GE(store_->prefetch_counters().wasted_bytes + store_->prefetch_counters().late_bytes,
            16 * expert_bytes_);
  const uint64_t reads = store_->Stats()->prefetch_reads;
  const uint64_t refused = store_->prefetch_counters().refused;
  store_->PrefetchFor(client, {store_->catalog().IndexOf({0, 31})});
  EXPECT_EQ(store_->Stats()->prefetch_reads, reads);
  EXPECT_EQ(store_->prefetch_counters().refused, refused + 1);
}

}  // namespace
}  // namespace odmoe
