#include "services/core/codec/telemetry_codec.h"

#include <algorithm>
#include <array>

#include "google/protobuf/util/time_util.h"
#include "services/core/codec/number_codec.h"

namespace odmoe {
namespace {

namespace telemetry_v1 = expert_storage::v1;

telemetry_v1::LogHistogram HistogramToProto(const LogHistogram& histogram) {
  telemetry_v1::LogHistogram proto;
  size_t used = LogHistogram::kBuckets;
  while (used > 0 && histogram.counts[used - 1] == 0) --used;
  for (size_t i = 0; i < used; ++i) proto.add_counts(SignedOf(histogram.counts[i]));
  proto.set_sum(SignedOf(histogram.sum));
  return proto;
}

LogHistogram HistogramFromProto(const telemetry_v1::LogHistogram& proto) {
  LogHistogram histogram;
  const int buckets = std::min(proto.counts_size(), static_cast<int>(LogHistogram::kBuckets));
  for (int i = 0; i < buckets; ++i) histogram.counts[i] = UnsignedOf(proto.counts(i));
  histogram.sum = UnsignedOf(proto.sum());
  return histogram;
}

telemetry_v1::ReadTelemetry ReadsToProto(const ReadTelemetry& reads) {
  telemetry_v1::ReadTelemetry proto;
  proto.set_reads(SignedOf(reads.reads));
  proto.set_bytes(SignedOf(reads.bytes));
  proto.set_under_way(SignedOf(reads.under_way));
  *proto.mutable_latency_us() = HistogramToProto(reads.latency_us);
  return proto;
}

ReadTelemetry ReadsFromProto(const telemetry_v1::ReadTelemetry& proto) {
  ReadTelemetry reads;
  reads.reads = UnsignedOf(proto.reads());
  reads.bytes = UnsignedOf(proto.bytes());
  reads.under_way = UnsignedOf(proto.under_way());
  reads.latency_us = HistogramFromProto(proto.latency_us());
  return reads;
}

telemetry_v1::SourceTelemetry SourceToProto(const SourceStats& source) {
  telemetry_v1::SourceTelemetry proto;
  proto.set_reader(source.reader);
  proto.set_past_page_cache(source.past_page_cache);
  proto.set_queue_depth(source.queue_depth);
  proto.set_request_bytes(SignedOf(source.request_bytes));
  proto.set_measured_bytes_per_second(source.measured_bytes_per_second);
  proto.set_requests(SignedOf(source.requests));
  proto.set_requests_under_way(SignedOf(source.requests_under_way));
  proto.set_requests_stuck(SignedOf(source.requests_stuck));
  proto.set_reads_waiting(SignedOf(source.reads_waiting));
  proto.set_open_files(SignedOf(source.open_files));
  proto.set_registered_bytes(SignedOf(source.registered_bytes));
  proto.set_checksum_failures(SignedOf(source.checksum_failures));
  proto.set_answered_by_another_disk(SignedOf(source.answered_by_another_disk));
  proto.set_open_retries(SignedOf(source.open_retries));
  for (const DiskStats& disk : source.disks) {
    telemetry_v1::DiskTelemetry& out = *proto.add_disks();
    out.set_reads(SignedOf(disk.reads));
    out.set_bytes_read(SignedOf(disk.bytes_read));
    out.set_failures(SignedOf(disk.failures));
    out.set_bytes_under_way(SignedOf(disk.bytes_under_way));
  }
  return proto;
}

SourceStats SourceFromProto(const telemetry_v1::SourceTelemetry& proto) {
  SourceStats source;
  source.reader = proto.reader();
  source.past_page_cache = proto.past_page_cache();
  source.queue_depth = static_cast<uint32_t>(std::min<uint64_t>(UnsignedOf(proto.queue_depth()),
                                                                UINT32_MAX));
  source.request_bytes = UnsignedOf(proto.request_bytes());
  source.measured_bytes_per_second = proto.measured_bytes_per_second();
  source.requests = UnsignedOf(proto.requests());
  source.requests_under_way = UnsignedOf(proto.requests_under_way());
  source.requests_stuck = UnsignedOf(proto.requests_stuck());
  source.reads_waiting = UnsignedOf(proto.reads_waiting());
  source.open_files = UnsignedOf(proto.open_files());
  source.registered_bytes = UnsignedOf(proto.registered_bytes());
  source.checksum_failures = UnsignedOf(proto.checksum_failures());
  source.answered_by_another_disk = UnsignedOf(proto.answered_by_another_disk());
  source.open_retries = UnsignedOf(proto.open_retries());
  for (const telemetry_v1::DiskTelemetry& disk : proto.disks()) {
    source.disks.push_back({"", UnsignedOf(disk.reads()), UnsignedOf(disk.bytes_read()),
                            UnsignedOf(disk.failures()), UnsignedOf(disk.bytes_under_way())});
  }
  return source;
}

telemetry_v1::UseCounters UseToProto(const UseCounters& use) {
  telemetry_v1::UseCounters proto;
  proto.set_hits(SignedOf(use.hits));
  proto.set_misses(SignedOf(use.misses));
  proto.set_shared_misses(SignedOf(use.shared_misses));
  proto.set_bytes_read(SignedOf(use.bytes_read));
  proto.set_failures(SignedOf(use.failures));
  *proto.mutable_stall() =
      google::protobuf::util::TimeUtil::NanosecondsToDuration(SignedOf(use.stall_ns));
  return proto;
}

UseCounters UseFromProto(const telemetry_v1::UseCounters& proto) {
  UseCounters use;
  use.hits = UnsignedOf(proto.hits());
  use.misses = UnsignedOf(proto.misses());
  use.shared_misses = UnsignedOf(proto.shared_misses());
  use.bytes_read = UnsignedOf(proto.bytes_read());
  use.failures = UnsignedOf(proto.failures());
  use.stall_ns = UnsignedOf(absl::ToInt64Nanoseconds(DurationOf(proto.stall())));
  return use;
}

// Of a StoreTelemetry, which has them as fields of its own, and of ExpertDistributions.
template <typename Proto>
void FillHistograms(const ExpertDistributions& telemetry, Proto& proto) {
  *proto.mutable_stall_us() = HistogramToProto(telemetry.stall_us);
  *proto.mutable_lifetime_us() = HistogramToProto(telemetry.lifetime_us);
  *proto.mutable_lifetime_demands() = HistogramToProto(telemetry.lifetime_demands);
  *proto.mutable_idle_before_evict_us() = HistogramToProto(telemetry.idle_before_evict_us);
  *proto.mutable_idle_before_evict_demands() =
      HistogramToProto(telemetry.idle_before_evict_demands);
  *proto.mutable_reuse_gap_us() = HistogramToProto(telemetry.reuse_gap_us);
  *proto.mutable_reuse_gap_demands() = HistogramToProto(telemetry.reuse_gap_demands);
}

template <typename Proto>
void FillHistograms(const Proto& proto, ExpertDistributions& telemetry) {
  telemetry.stall_us = HistogramFromProto(proto.stall_us());
  telemetry.lifetime_us = HistogramFromProto(proto.lifetime_us());
  telemetry.lifetime_demands = HistogramFromProto(proto.lifetime_demands());
  telemetry.idle_before_evict_us = HistogramFromProto(proto.idle_before_evict_us());
  telemetry.idle_before_evict_demands = HistogramFromProto(proto.idle_before_evict_demands());
  telemetry.reuse_gap_us = HistogramFromProto(proto.reuse_gap_us());
  telemetry.reuse_gap_demands = HistogramFromProto(proto.reuse_gap_demands());
}

void FillUsers(const StoreTelemetry& telemetry, telemetry_v1::StoreTelemetry& proto) {
  for (const ClientTelemetry& client : telemetry.clients) {
    telemetry_v1::ClientTelemetry& out = *proto.add_clients();
    out.set_id(SignedOf(client.id));
    out.set_name(client.name);
    out.set_tenant(client.tenant);
    out.set_local(client.local);
    *out.mutable_use() = UseToProto(client.use);
    out.set_unanswered(SignedOf(client.unanswered));
  }
  for (const TenantTelemetry& tenant : telemetry.tenants) {
    telemetry_v1::TenantTelemetry& out = *proto.add_tenants();
    out.set_name(tenant.name);
    out.set_clients(SignedOf(tenant.clients));
    out.set_resident_bytes(SignedOf(tenant.resident_bytes));
    out.set_quota_bytes(SignedOf(tenant.quota_bytes));
    out.set_disk_share(tenant.disk_share);
    *out.mutable_use() = UseToProto(tenant.use);
    out.set_unanswered(SignedOf(tenant.unanswered));
    FillHistograms(tenant, *out.mutable_distributions());
  }
}

void FillUsers(const telemetry_v1::StoreTelemetry& proto, StoreTelemetry& telemetry) {
  for (const telemetry_v1::ClientTelemetry& client : proto.clients()) {
    telemetry.clients.push_back({UnsignedOf(client.id()), client.name(), client.tenant(),
                                 client.local(), UseFromProto(client.use()),
                                 UnsignedOf(client.unanswered())});
  }
  for (const telemetry_v1::TenantTelemetry& tenant : proto.tenants()) {
    TenantTelemetry& out = telemetry.tenants.emplace_back();
    out.name = tenant.name();
    out.clients = UnsignedOf(tenant.clients());
    out.resident_bytes = UnsignedOf(tenant.resident_bytes());
    out.quota_bytes = UnsignedOf(tenant.quota_bytes());
    out.disk_share = tenant.disk_share();
    out.use = UseFromProto(tenant.use());
    out.unanswered = UnsignedOf(tenant.unanswered());
    FillHistograms(tenant.distributions(), out);
  }
}

}  // namespace

telemetry_v1::StoreTelemetry ToProto(const StoreTelemetry& telemetry) {
  telemetry_v1::StoreTelemetry proto;
  *proto.mutable_demand_reads() = ReadsToProto(telemetry.reads[0]);
  *proto.mutable_prefetch_reads() = ReadsToProto(telemetry.reads[1]);
  *proto.mutable_background_reads() = ReadsToProto(telemetry.reads[2]);
  proto.set_remote_bytes(SignedOf(telemetry.remote_bytes));
  *proto.mutable_source() = SourceToProto(telemetry.source);
  telemetry_v1::PrefetchTelemetry& prefetch = *proto.mutable_prefetch();
  prefetch.set_useful_bytes(SignedOf(telemetry.prefetch.useful_bytes));
  prefetch.set_late_bytes(SignedOf(telemetry.prefetch.late_bytes));
  prefetch.set_wasted_bytes(SignedOf(telemetry.prefetch.wasted_bytes));
  prefetch.set_delayed_demands(SignedOf(telemetry.prefetch.delayed_demands));
  prefetch.set_shut_offs(SignedOf(telemetry.prefetch.shut_offs));
  telemetry_v1::QueueTelemetry& queues = *proto.mutable_queues();
  queues.set_waiting_for_slot(SignedOf(telemetry.queues.waiting_for_slot));
  queues.set_waiting_for_disk(SignedOf(telemetry.queues.waiting_for_disk));
  queues.set_prefetches(SignedOf(telemetry.queues.prefetches));
  queues.set_background(SignedOf(telemetry.queues.background));
  FillHistograms(telemetry, proto);
  for (const LayerTelemetry& layer : telemetry.layers) {
    telemetry_v1::LayerTelemetry& out = *proto.add_layers();
    out.set_layer(layer.layer);
    out.set_expert_count(SignedOf(layer.expert_count));
    out.set_resident(SignedOf(layer.resident));
    out.set_demands(SignedOf(layer.demands));
    out.set_misses(SignedOf(layer.misses));
  }
  FillUsers(telemetry, proto);
  proto.set_policy(telemetry.policy);
  for (const ShadowPolicyHits& shadow : telemetry.shadow_policies) {
    telemetry_v1::ShadowPolicyHits& out = *proto.add_shadow_policies();
    out.set_policy(shadow.policy);
    out.set_demands(SignedOf(shadow.demands));
    out.set_hits(SignedOf(shadow.hits));
  }
  for (const ExpertHeat& heat : telemetry.experts) {
    proto.add_expert_heat(SignedOf(2 * heat.demands + (heat.resident ? 1 : 0)));
  }
  return proto;
}

StoreTelemetry FromProto(const telemetry_v1::StoreTelemetry& proto) {
  StoreTelemetry telemetry;
  telemetry.reads = {ReadsFromProto(proto.demand_reads()), ReadsFromProto(proto.prefetch_reads()),
                     ReadsFromProto(proto.background_reads())};
  telemetry.remote_bytes = UnsignedOf(proto.remote_bytes());
  telemetry.source = SourceFromProto(proto.source());
  telemetry.prefetch = {UnsignedOf(proto.prefetch().useful_bytes()),
                        UnsignedOf(proto.prefetch().late_bytes()),
                        UnsignedOf(proto.prefetch().wasted_bytes()),
                        UnsignedOf(proto.prefetch().delayed_demands()),
                        UnsignedOf(proto.prefetch().shut_offs())};
  telemetry.queues = {UnsignedOf(proto.queues().waiting_for_slot()),
                      UnsignedOf(proto.queues().waiting_for_disk()),
                      UnsignedOf(proto.queues().prefetches()),
                      UnsignedOf(proto.queues().background())};
  FillHistograms(proto, telemetry);
  for (const telemetry_v1::LayerTelemetry& layer : proto.layers()) {
    telemetry.layers.push_back({layer.layer(), UnsignedOf(layer.expert_count()),
                                UnsignedOf(layer.resident()), UnsignedOf(layer.demands()),
                                UnsignedOf(layer.misses())});
  }
  FillUsers(proto, telemetry);
  telemetry.policy = proto.policy();
  for (const telemetry_v1::ShadowPolicyHits& shadow : proto.shadow_policies()) {
    telemetry.shadow_policies.push_back(
        {shadow.policy(), UnsignedOf(shadow.demands()), UnsignedOf(shadow.hits())});
  }
  for (const int64_t heat : proto.expert_heat()) {
    telemetry.experts.push_back({UnsignedOf(heat) / 2, UnsignedOf(heat) % 2 == 1});
  }
  return telemetry;
}

}  // namespace odmoe
