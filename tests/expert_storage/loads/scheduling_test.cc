// Who is read next, what counts as under way, whether prefetching pays: the parts of the store that
// decide, without one.
#include <cmath>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/expert_storage/loads/read_scheduler.h"
#include "services/expert_storage/loads/reads_under_way.h"
#include "services/expert_storage/loads/shared_disks.h"
#include "services/expert_storage/prefetch/prefetch_judge.h"
#include "services/expert_storage/tenants/tenant_table.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;

// Takes what is next, charges its tenant, and returns it.
ReadScheduler::Pick TakeNext(ReadScheduler& scheduler) {
  const auto pick = scheduler.Next();
  EXPECT_TRUE(pick.has_value());
  if (!pick) return {};
  scheduler.Take(*pick);
  scheduler.Charge(pick->tenant, pick->entry.bytes);
  return *pick;
}

TEST(ReadSchedulerTest, ATenantAloneIsServedInTheOrderAsked) {
  ReadScheduler scheduler({1.0}, 100);
  for (int64_t expert = 0; expert < 5; ++expert) scheduler.Push(0, {expert, 60, 7});
  for (int64_t expert = 0; expert < 5; ++expert) {
    EXPECT_EQ(TakeNext(scheduler).entry.expert, expert);
  }
  EXPECT_FALSE(scheduler.Next().has_value());
  EXPECT_TRUE(scheduler.empty());
}

TEST(ReadSchedulerTest, SharesAreKeptByBytesWhateverTheSizes) {
  // Three with shares 1, 2 and 5, always backlogged, with experts of different sizes.
  const std::vector<double> shares = {1.0, 2.0, 5.0};
  const std::vector<uint64_t> sizes = {300, 70, 110};
  ReadScheduler scheduler(shares, 1000);
  std::vector<uint64_t> served(3, 0);
  int64_t next = 0;
  for (int32_t tenant = 0; tenant < 3; ++tenant) {
    for (int i = 0; i < 20; ++i) scheduler.Push(tenant, {next++, sizes[tenant], 1});
  }
  uint64_t total = 0;
  while (total < 1000000) {
    const ReadScheduler::Pick pick = TakeNext(scheduler);
    served[pick.tenant] += pick.entry.bytes;
    total += pick.entry.bytes;
    scheduler.Push(pick.tenant, {next++, sizes[pick.tenant], static_cast<uint64_t>(next / 4)});
  }
  for (int32_t tenant = 0; tenant < 3; ++tenant) {
    const double expected = static_cast<double>(total) * shares[tenant] / 8.0;
    EXPECT_NEAR(static_cast<double>(served[tenant]), expected, 2500.0) << tenant;
    EXPECT_EQ(scheduler.charged_bytes(tenant), served[tenant]);
  }
}

TEST(ReadSchedulerTest, AQuietTenantWaitsForOneTurnOfEachOtherAtMost) {
  std::mt19937 random(5);
  ReadScheduler scheduler({1.0, 1.0, 1.0}, 800);
  for (int64_t i = 0; i < 10000; ++i) scheduler.Push(0, {i, 100, static_cast<uint64_t>(i / 64)});
  for (int64_t i = 0; i < 10000; ++i) scheduler.Push(1, {i, 100, static_cast<uint64_t>(i / 64)});
  for (int round = 0; round < 200; ++round) {
    for (uint32_t i = random() % 20; i > 0; --i) TakeNext(scheduler);
    for (int64_t i = 0; i < 8; ++i) scheduler.Push(2, {20000 + i, 100, 999999});
    uint64_t waited = 0;
    while (TakeNext(scheduler).tenant != 2) waited += 100;
    EXPECT_LE(waited, 2 * 800u);
    // And a layer's experts come together.
    for (int i = 1; i < 8; ++i) EXPECT_EQ(TakeNext(scheduler).tenant, 2);
  }
}

TEST(ReadSchedulerTest, WhatWasNotUsedIsNotSavedUp) {
  ReadScheduler scheduler({1.0, 1.0}, 1);
  for (int64_t i = 0; i < 1000; ++i) {
    scheduler.Push(0, {i, 10, 1});
    TakeNext(scheduler);
  }
  for (int64_t i = 0; i < 100; ++i) scheduler.Push(0, {i, 10, 2});
  for (int64_t i = 0; i < 100; ++i) scheduler.Push(1, {i, 10, 3});
  int of_second = 0;
  for (int i = 0; i < 100; ++i) of_second += TakeNext(scheduler).tenant == 1 ? 1 : 0;
  EXPECT_NEAR(of_second, 50, 1);
}

TEST(ReadSchedulerTest, BlockedTenantsArePassedOverAndDroppedExpertsAreGone) {
  ReadScheduler scheduler({1.0, 1.0}, 10);
  scheduler.Push(0, {1, 10, 1});
  scheduler.Push(0, {2, 10, 1});
  scheduler.Push(1, {3, 10, 2});
  scheduler.Block(0);
  EXPECT_EQ(TakeNext(scheduler).entry.expert, 3);
  EXPECT_FALSE(scheduler.Next().has_value());
  EXPECT_TRUE(scheduler.any_blocked());
  scheduler.UnblockAll();
  scheduler.Drop(0, 1);
  scheduler.Drop(0, 77);
  EXPECT_EQ(scheduler.queued_bytes(0), 10u);
  EXPECT_EQ(TakeNext(scheduler).entry.expert, 2);
  EXPECT_TRUE(scheduler.empty());
}

TEST(SharedDisksTest, StoresDivideADiskByTheirDemandingTenantsShares) {
  const auto disks = std::make_shared<SharedDisks>();
  const std::vector<double> shares = {1.0, 3.0, 2.0};
  const auto a = disks->Join({7}, shares);
  auto b = disks->Join({8, 7}, shares);
  const auto elsewhere = disks->Join({9}, shares);
  elsewhere->SetDemanding(0b111);
  a->SetDemanding(0b001);
  // Who demands nothing takes nothing, and who reads from other disks neither.
  EXPECT_EQ(a->Divide().part, 1.0);
  EXPECT_FALSE(a->OthersDemand());
  EXPECT_TRUE(b->OthersDemand());
  b->SetDemanding(0b010);
  EXPECT_EQ(a->Divide().part, 0.25);
  EXPECT_EQ(b->Divide().part, 0.75);
  EXPECT_THAT(a->Divide().shares, ElementsAre(1.0, 3.0, 2.0));
  // A tenant of both divides its share: 1/2 of 1 here, 1/2 and 3 there.
  b->SetDemanding(0b011);
  EXPECT_EQ(a->Divide().part, 0.125);
  EXPECT_EQ(b->Divide().part, 0.875);
  EXPECT_THAT(b->Divide().shares, ElementsAre(0.5, 3.0, 2.0));
  EXPECT_EQ(elsewhere->Divide().part, 1.0);
  b.reset();
  EXPECT_EQ(a->Divide().part, 1.0);
}

ExpertLoad LoadOf(uint64_t bytes, ExpertLoad::Cause cause = ExpertLoad::Cause::kDemand) {
  ExpertLoad load;
  load.bytes = bytes;
  load.cause = cause;
  load.control = std::make_shared<ReadControl>(ReadControl::Urgency::kDemand);
  return load;
}

TEST(ReadsUnderWayTest, AReadThatHangsLeavesTheCount) {
  ReadsUnderWay under_way({/*desired_bytes=*/100, /*max_stalled=*/2, absl::ZeroDuration()});
  const absl::Time start = absl::FromUnixSeconds(1000);
  // Reads take 1 ms.
  absl::Time now = start;
  for (int i = 0; i < 50; ++i) {
    ExpertLoad load = LoadOf(60);
    under_way.Begin(load, now);
    EXPECT_EQ(under_way.demand_bytes(), 60u);
    now += absl::Milliseconds(1);
    under_way.End(load, now);
  }
  EXPECT_EQ(under_way.NextStall(), absl::InfiniteFuture());
  ExpertLoad hung[3] = {LoadOf(60), LoadOf(60), LoadOf(60)};
  for (ExpertLoad& load : hung) under_way.Begin(load, now);
  EXPECT_FALSE(under_way.WantsDemand());
  EXPECT_LE(under_way.NextStall() - now, absl::Milliseconds(100));
  EXPECT_EQ(under_way.MarkStalled(now + absl::Milliseconds(5)), 0u);
  // Two may leave, the third may be a device that is slow.
  EXPECT_EQ(under_way.MarkStalled(now + absl::Seconds(10)), 2u);
  EXPECT_EQ(under_way.demand_bytes(), 60u);
  EXPECT_TRUE(under_way.WantsDemand());
  EXPECT_EQ(under_way.count(), 3u);
  EXPECT_TRUE(hung[0].stalled);
  for (ExpertLoad& load : hung) under_way.End(load, now + absl::Seconds(11));
  EXPECT_EQ(under_way.count(), 0u);
  EXPECT_EQ(under_way.demand_bytes(), 0u);
  // One that is queued again is not taken for a read that hangs.
  EXPECT_FALSE(hung[0].stalled);
}

TEST(ReadsUnderWayTest, WhatWasBegunTogetherIsTakenForHungTogether) {
  ReadsUnderWay under_way({/*desired_bytes=*/1000, /*max_stalled=*/8, absl::ZeroDuration()});
  absl::Time now = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 50; ++i) {
    ExpertLoad load = LoadOf(60);
    under_way.Begin(load, now);
    now += absl::Milliseconds(10);
    under_way.End(load, now);
  }
  ExpertLoad hung[4] = {LoadOf(60), LoadOf(60), LoadOf(60), LoadOf(60)};
  for (ExpertLoad& load : hung) {
    if (&load == &hung[3]) now += absl::Milliseconds(40);
    under_way.Begin(load, now);
    now += absl::Milliseconds(1);
  }
  EXPECT_EQ(under_way.MarkStalled(under_way.NextStall()), 3u);
  EXPECT_EQ(under_way.stalled(), 3u);
  for (ExpertLoad& load : hung) under_way.End(load, now);
}

TEST(ReadsUnderWayTest, ADemandThatJoinsAPrefetchCounts) {
  ReadsUnderWay under_way({100, 2, absl::ZeroDuration()});
  ExpertLoad load = LoadOf(150, ExpertLoad::Cause::kPrefetch);
  load.control = std::make_shared<ReadControl>(ReadControl::Urgency::kPrefetch);
  under_way.Begin(load, absl::Now());
  EXPECT_TRUE(under_way.WantsDemand() && under_way.NoDemand() && !under_way.NoPrefetch());
  under_way.Raise(load);
  EXPECT_EQ(load.control->urgency(), ReadControl::Urgency::kDemand);
  EXPECT_TRUE(!under_way.WantsDemand() && !under_way.NoDemand() && under_way.NoPrefetch());
  under_way.End(load, absl::Now());
}

TEST(PrefetchJudgeTest, WhatPaysStaysOnAndWhatDoesNotIsShutOffAndTriedAgain) {
  PrefetchJudge judge(/*window_bytes=*/1000);
  // Three of four useful, the disk idle: pays.
  for (int i = 0; i < 100; ++i) i % 4 == 0 ? judge.Wasted(10) : judge.Useful(10);
  EXPECT_TRUE(judge.on());
  // One of twenty, and every demand behind a prefetch.
  int outcomes = 0;
  for (; judge.on() && outcomes < 1000; ++outcomes) {
    outcomes % 20 == 0 ? judge.Useful(10) : judge.Wasted(10);
    judge.Delayed(5);
  }
  EXPECT_LE(outcomes, 100);
  EXPECT_EQ(judge.counters().shut_offs, 1u);
  // Off for so many demands, and twice as many after a trial that fails.
  for (uint64_t pause : {PrefetchJudge::kFirstPause, 2 * PrefetchJudge::kFirstPause}) {
    for (uint64_t i = 0; i < pause; ++i) {
      EXPECT_FALSE(judge.on());
      judge.Demanded(3, false, 10);
    }
    ASSERT_TRUE(judge.on());
    for (outcomes = 0; judge.on() && outcomes < 100; ++outcomes) judge.Late(10);
    EXPECT_EQ(outcomes, 25);
  }
  // One that succeeds ends it.
  for (uint64_t i = 0; i < 4 * PrefetchJudge::kFirstPause; ++i) judge.Demanded(3, false, 10);
  for (int i = 0; i < 300; ++i) judge.Useful(10);
  EXPECT_TRUE(judge.on());
}

TEST(PrefetchJudgeTest, WhatAPrefetchDisplacedAndIsMissedIsACost) {
  PrefetchJudge judge(1000);
  for (int64_t expert = 0; expert < 40; ++expert) {
    judge.Displaced(expert);
    judge.Demanded(expert, true, 30);
    judge.Demanded(expert, true, 30);  // once only
    judge.Demanded(expert, false, 30);
  }
  EXPECT_EQ(judge.counters().regretted_bytes, 40 * 30u);
  for (int i = 0; i < 100; ++i) judge.Useful(10);
  EXPECT_FALSE(judge.on());
}

TEST(TenantTableTest, SpecsAreParsed) {
  const auto spec = ParseTenant("batch:cache=25%:disk=0.5");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "batch");
  EXPECT_EQ(spec->disk_share, 0.5);
  EXPECT_EQ(spec->cache->percent, 25.0);
  EXPECT_EQ(ParseTenant("a:cache=1GiB")->cache->bytes, uint64_t{1} << 30);
  EXPECT_FALSE(ParseTenant("a")->cache.has_value());
  for (const char* bad : {"", ":cache=1%", "a:cache", "a:cache=", "a:cache=auto", "a:cache=101%",
                          "a:disk=0", "a:disk=-1", "a:disk=nan", "a:disk=inf", "a:disk=x",
                          "a:disk=1e300", "a:colour=1", "a::disk=1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTenant(bad).status())) << bad;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ParseTenant(std::string(200, 'a')).status()));
}

TEST(TenantTableTest, ClientsBelongToWhomTheyNameElseToTheDefault) {
  const std::vector<TenantSpec> specs = {ParseTenant("a:cache=25%").value(),
                                         ParseTenant("b:disk=3").value()};
  const TenantTable open = TenantTable::Create(specs, /*listed_only=*/false).value();
  EXPECT_EQ(open.size(), 3u);
  EXPECT_EQ(open.Find("a").value(), 1);
  EXPECT_EQ(open.Find("b").value(), 2);
  EXPECT_EQ(open.Find("").value(), TenantTable::kDefault);
  EXPECT_EQ(open.Find("c").value(), TenantTable::kDefault);
  EXPECT_THAT(open.disk_shares(), ElementsAre(1.0, 1.0, 3.0));
  EXPECT_EQ(open.QuotaBytes(1, 1000), 250u);
  EXPECT_EQ(open.QuotaBytes(2, 1000), 1000u);
  EXPECT_TRUE(open.has_quotas());
  EXPECT_FALSE(TenantTable().has_quotas());

  const TenantTable closed = TenantTable::Create(specs, /*listed_only=*/true).value();
  EXPECT_EQ(closed.Find("a").value(), 1);
  for (const char* name : {"", "c", "default"}) {
    EXPECT_TRUE(absl::IsPermissionDenied(closed.Find(name).status())) << name;
  }
  const std::vector<TenantSpec> with_default = {ParseTenant("default:cache=50%").value()};
  const TenantTable listed = TenantTable::Create(with_default, /*listed_only=*/true).value();
  EXPECT_EQ(listed.Find("").value(), TenantTable::kDefault);
  EXPECT_EQ(listed.QuotaBytes(TenantTable::kDefault, 1000), 500u);

  const std::vector<TenantSpec> twice = {specs[0], specs[0]};
  EXPECT_TRUE(absl::IsInvalidArgument(TenantTable::Create(twice, false).status()));
  std::vector<TenantSpec> many;
  for (int i = 0; i < 100; ++i) many.push_back({std::string(1 + i, 'x'), std::nullopt, 1.0});
  EXPECT_TRUE(absl::IsInvalidArgument(TenantTable::Create(many, false).status()));
}

}  // namespace
}  // namespace odmoe
