#include "services/core/codec/telemetry_codec.h"

#include <array>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

std::array<LogHistogram*, 7> HistogramsOf(ExpertDistributions& all) {
  return {&all.stall_us,
          &all.lifetime_us,
          &all.lifetime_demands,
          &all.idle_before_evict_us,
          &all.idle_before_evict_demands,
          &all.reuse_gap_us,
          &all.reuse_gap_demands};
}

StoreTelemetry EveryFieldSet() {
  uint64_t next = 1;
  const auto fill = [&next](LogHistogram& histogram) {
    for (int i = 0; i < 5; ++i) histogram.Add(next++ << (2 * i));
  };
  const auto use = [&next] {
    const UseCounters counters = {next, next + 1, next + 2, next + 3, next + 4, next + 5};
    next += 6;
    return counters;
  };
  StoreTelemetry t;
  for (ReadTelemetry& reads : t.reads) {
    reads.reads = next++;
    reads.bytes = next++;
    reads.under_way = next++;
    fill(reads.latency_us);
  }
  t.remote_bytes = next++;
  t.prefetch = {11, 12, 13, 14, 15};
  t.queues = {next, next + 1, next + 2, next + 3};
  for (LogHistogram* histogram : HistogramsOf(t)) fill(*histogram);
  t.layers = {{3, 2, 1, 40, 5}, {4, 3, 2, 50, 6}};
  t.clients = {{1, "here", "", true, use(), 2}, {2, "there", "batch", false, use(), 3}};
  t.tenants = {{{}, "", 1, 4096, 0, 1.0, use(), 4}, {{}, "batch", 2, 8192, 16384, 0.25, use(), 5}};
  for (LogHistogram* histogram : HistogramsOf(t.tenants[1])) fill(*histogram);
  t.source.reader = "io_uring";
  t.source.past_page_cache = true;
  t.source.queue_depth = 32;
  t.source.measured_bytes_per_second = 3e9;
  for (uint64_t* value :
       {&t.source.request_bytes, &t.source.requests, &t.source.requests_under_way,
        &t.source.requests_stuck, &t.source.reads_waiting, &t.source.open_files,
        &t.source.registered_bytes, &t.source.checksum_failures,
        &t.source.answered_by_another_disk, &t.source.open_retries}) {
    *value = next++;
  }
  t.source.disks = {{"", 1, 2, 3, 4}, {"", 5, 6, 7, 8}};
  t.experts = {{7, true}, {8, false}, {0, true}};
  return t;
}

TEST(TelemetryCodecTest, EveryFieldComesBack) {
  const StoreTelemetry sent = EveryFieldSet();
  const StoreTelemetry got = FromProto(ToProto(sent));
  for (size_t i = 0; i < kReadCauses; ++i) {
    EXPECT_EQ(got.reads[i].reads, sent.reads[i].reads);
    EXPECT_EQ(got.reads[i].bytes, sent.reads[i].bytes);
    EXPECT_EQ(got.reads[i].under_way, sent.reads[i].under_way);
    EXPECT_EQ(got.reads[i].latency_us, sent.reads[i].latency_us);
  }
  EXPECT_EQ(static_cast<const ExpertDistributions&>(got), sent);
  EXPECT_EQ(static_cast<const ExpertDistributions&>(got.tenants[1]), sent.tenants[1]);
  EXPECT_EQ(got.experts, sent.experts);
  // The rest by what goes over the wire: once more, it is the same.
  EXPECT_EQ(ToProto(got).SerializeAsString(), ToProto(sent).SerializeAsString());
  EXPECT_EQ(got.clients[1].use.stall_ns, sent.clients[1].use.stall_ns);
  EXPECT_EQ(got.tenants[1].disk_share, 0.25);
  EXPECT_EQ(got.tenants[1].unanswered, 5u);
  EXPECT_EQ(got.layers[1].misses, 6u);
  EXPECT_EQ(got.queues.background, sent.queues.background);
  EXPECT_EQ(got.remote_bytes, sent.remote_bytes);
  EXPECT_EQ(got.prefetch.shut_offs, 15u);
  EXPECT_EQ(got.source.reader, "io_uring");
  EXPECT_EQ(got.source.open_retries, sent.source.open_retries);
  EXPECT_EQ(got.source.disks[1].bytes_under_way, 8u);
}

TEST(TelemetryCodecTest, AServiceThatLiesIsReadAsFarAsItMakesSense) {
  expert_storage::v1::StoreTelemetry proto;
  proto.set_remote_bytes(-5);
  for (int i = 0; i < 1000; ++i) proto.mutable_stall_us()->add_counts(i % 2 == 0 ? -1 : 1);
  proto.mutable_stall_us()->set_sum(std::numeric_limits<int64_t>::min());
  proto.add_expert_heat(-3);
  proto.add_expert_heat(std::numeric_limits<int64_t>::max());
  proto.add_clients()->mutable_use()->mutable_stall()->set_seconds(-1);
  const StoreTelemetry got = FromProto(proto);
  EXPECT_EQ(got.remote_bytes, 0u);
  EXPECT_EQ(got.stall_us.count(), LogHistogram::kBuckets / 2);
  EXPECT_EQ(got.stall_us.sum, 0u);
  EXPECT_EQ(got.experts[0], ExpertHeat());
  EXPECT_TRUE(got.experts[1].resident);
  EXPECT_EQ(got.clients[0].use.stall_ns, 0u);
}

}  // namespace
}  // namespace odmoe
