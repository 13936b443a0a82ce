// What a store records of its experts, and what it tells of it.
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/expert_storage/caching_expert_store.h"
#include "services/expert_storage/telemetry/demand_recorder.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

constexpr int64_t kMs = 1'000'000;  // ns

MemoryExpertSource::RandomOptions Shape() {
  MemoryExpertSource::RandomOptions shape;
  shape.layers = 2;
  shape.experts_per_layer = 4;
  return shape;
}

TEST(DemandRecorderTest, LivesAndGapsAreTakenInTimeAndInDemands) {
  const auto source = MemoryExpertSource::Random(Shape()).value();
  DemandRecorder recorder(source->catalog());
  recorder.SetNow(1000 * kMs);
  recorder.Demanded(0);  // its first: no gap
  recorder.Inserted(0);
  recorder.SetNow(1016 * kMs);
  recorder.Demanded(5);
  recorder.Demanded(0);
  recorder.SetNow(1048 * kMs);
  recorder.Demanded(6);
  recorder.Evicted(0);
  StoreTelemetry t;
  recorder.Fill(true, t);
  EXPECT_EQ(t.reuse_gap_us.count(), 1u);
  EXPECT_EQ(t.reuse_gap_us.sum, 16'000u);
  EXPECT_EQ(t.reuse_gap_demands.sum, 2u);
  EXPECT_EQ(t.lifetime_us.sum, 48'000u);
  EXPECT_EQ(t.lifetime_demands.sum, 3u);
  EXPECT_EQ(t.idle_before_evict_us.sum, 32'000u);
  EXPECT_EQ(t.idle_before_evict_demands.sum, 1u);
  EXPECT_EQ(t.experts[0].demands, 2u);
  EXPECT_EQ(t.layers[1].demands, 2u);
  EXPECT_EQ(t.layers[1].misses, 0u);
}

TEST(DemandRecorderTest, WhatAPrefetchBroughtInVainWasIdleAllItsLife) {
  const auto source = MemoryExpertSource::Random(Shape()).value();
  DemandRecorder recorder(source->catalog());
  recorder.SetNow(5 * kMs);
  recorder.Demanded(1);
  recorder.Inserted(2);
  recorder.Demanded(1);
  recorder.SetNow(9 * kMs);
  recorder.Evicted(2);
  StoreTelemetry t;
  recorder.Fill(false, t);
  EXPECT_EQ(t.lifetime_us.sum, 4'000u);
  EXPECT_EQ(t.idle_before_evict_us.sum, 4'000u);
  EXPECT_EQ(t.idle_before_evict_demands.sum, 1u);
  EXPECT_TRUE(t.experts.empty());
  recorder.SetNow(0);  // a clock that was set back
  recorder.Demanded(1);
  recorder.Fill(false, t);
  EXPECT_EQ(t.reuse_gap_us.sum, 0u);
}

TEST(DemandRecorderTest, EachTenantHasItsPart) {
  const auto source = MemoryExpertSource::Random(Shape()).value();
  DemandRecorder recorder(source->catalog(), 2);
  recorder.SetNow(1000 * kMs);
  recorder.Demanded(0, 0);
  recorder.Inserted(0);
  recorder.Answered(700, 0);
  recorder.SetNow(1004 * kMs);
  recorder.Demanded(0, 1);  // a gap of the one who asks again
  recorder.SetNow(1010 * kMs);
  recorder.Evicted(0, 0);   // a life of the one at whose charge it was
  EXPECT_EQ(recorder.OfTenant(0).stall_us.sum, 700u);
  EXPECT_EQ(recorder.OfTenant(0).reuse_gap_us.count(), 0u);
  EXPECT_EQ(recorder.OfTenant(0).lifetime_us.sum, 10'000u);
  EXPECT_EQ(recorder.OfTenant(1).reuse_gap_us.sum, 4'000u);
  EXPECT_EQ(recorder.OfTenant(1).lifetime_us.count(), 0u);
  StoreTelemetry t;
  recorder.Fill(false, t);
  ExpertDistributions both = recorder.OfTenant(0);
  both += recorder.OfTenant(1);
  EXPECT_EQ(static_cast<const ExpertDistributions&>(t), both);
}

class StoreTelemetryTest : public ::testing::Test {
 protected:
  StoreTelemetryTest() {
    auto source = std::make_unique<FaultyExpertSource>(
        MemoryExpertSource::Random(Shape()).value(), faults_);
    CachingExpertStore::Options options;
    bytes_ = source->catalog().max_expert_bytes();
    options.budget_bytes = 4 * SlotBytes(bytes_);
    options.tenants = TenantTable::Create({{{"batch", std::nullopt, 0.5}}}, false).value();
    store_ = CachingExpertStore::Create(std::move(source), std::move(options)).value();
  }

  absl::Status Demand(const std::vector<ExpertId>& ids) {
    const auto batch = store_->Acquire(ids, absl::Now() + absl::Minutes(1)).value();
    absl::Status status;
    for (size_t i = 0; i < ids.size(); ++i) status.Update(batch->Wait(i).status());
    return status;
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  uint64_t bytes_ = 0;
  std::unique_ptr<CachingExpertStore> store_;
};

TEST_F(StoreTelemetryTest, TellsOfReadsLayersExpertsAndWhoAsked) {
  ASSERT_TRUE(Demand({{0, 0}, {0, 1}}).ok());
  ASSERT_TRUE(Demand({{0, 0}}).ok());
  faults_->Fail({1, 3}, absl::DataLossError("bad sector"));
  EXPECT_TRUE(absl::IsDataLoss(Demand({{1, 3}})));
  const StoreTelemetry t = store_->Telemetry(true);
  EXPECT_EQ(t.reads[0].reads, 2u);
  EXPECT_EQ(t.reads[0].bytes, 2 * bytes_);
  EXPECT_EQ(t.reads[0].latency_us.count(), 2u);
  EXPECT_EQ(t.reads[0].under_way, 0u);
  EXPECT_EQ(t.stall_us.count(), 3u);
  EXPECT_EQ(t.reuse_gap_demands.count(), 1u);
  ASSERT_EQ(t.layers.size(), 2u);
  EXPECT_EQ(t.layers[0].demands, 3u);
  EXPECT_EQ(t.layers[0].misses, 2u);
  EXPECT_EQ(t.layers[0].resident, 2u);
  EXPECT_EQ(t.layers[1].resident, 0u);
  ASSERT_EQ(t.experts.size(), 8u);
  EXPECT_EQ(t.experts[0], (ExpertHeat{2, true}));
  EXPECT_EQ(t.experts[7], (ExpertHeat{1, false}));
  ASSERT_EQ(t.clients.size(), 3u);  // here, sent to others, computed for others
  EXPECT_TRUE(t.clients[0].local && t.clients[1].local);
  EXPECT_EQ(t.clients[0].use.hits, 1u);
  EXPECT_EQ(t.clients[0].use.misses, 3u);
  EXPECT_EQ(t.clients[0].use.failures, 1u);
  EXPECT_EQ(t.clients[0].use.bytes_read, 2 * bytes_);
  ASSERT_EQ(t.tenants.size(), 2u);
  EXPECT_EQ(t.tenants[0].use.misses, 3u);
  EXPECT_EQ(t.tenants[0].stall_us.count(), 3u);
  EXPECT_EQ(t.tenants[1].stall_us.count(), 0u);
  EXPECT_EQ(t.tenants[1].name, "batch");
  EXPECT_EQ(t.tenants[1].disk_share, 0.5);
  EXPECT_TRUE(store_->Telemetry(false).experts.empty());
}

TEST_F(StoreTelemetryTest, WhatIsUnderWayAndWaitingShows) {
  faults_->Hold();
  const auto batch = store_->Acquire({{0, 0}, {0, 1}}, absl::Now() + absl::Minutes(1)).value();
  ASSERT_TRUE(faults_->AwaitHeld(2));
  StoreTelemetry t = store_->Telemetry(false);
  EXPECT_EQ(t.reads[0].under_way, 2u);
  EXPECT_EQ(t.clients[0].unanswered, 2u);
  EXPECT_EQ(t.tenants[0].unanswered, 2u);
  EXPECT_EQ(t.stall_us.count(), 0u);
  store_->CountSent(123);
  faults_->Release();
  ASSERT_TRUE(batch->Wait(0).ok() && batch->Wait(1).ok());
  t = store_->Telemetry(false);
  EXPECT_EQ(t.reads[0].under_way, 0u);
  EXPECT_EQ(t.clients[0].unanswered, 0u);
  EXPECT_EQ(t.remote_bytes, 123u);
}

TEST_F(StoreTelemetryTest, WhatATenantsClientsHadStaysWhenTheyLeave) {
  const auto client = store_->AttachClient("worker", "batch").value();
  PinPage page = client->page;
  page.CountHits(5);
  page.CountStall(7);
  StoreTelemetry t = store_->Telemetry(false);
  EXPECT_EQ(t.tenants[1].clients, 1u);
  EXPECT_EQ(t.tenants[1].use.hits, 5u);
  EXPECT_EQ(t.clients[3].name, "worker");
  store_->EndSession(client);
  t = store_->Telemetry(false);
  EXPECT_EQ(t.clients.size(), 3u);
  EXPECT_EQ(t.tenants[1].clients, 0u);
  EXPECT_EQ(t.tenants[1].use.hits, 5u);
  EXPECT_EQ(t.tenants[1].use.stall_ns, 7u);
  EXPECT_EQ(store_->Stats()->hits, 5u);
}

}  // namespace
}  // namespace odmoe
