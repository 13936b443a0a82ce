#include "clients/cli/stats/stats_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/stats/store_view.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

double ShareOf(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : double(part) / double(whole);
}

std::string PercentText(double share) { return absl::StrFormat("%.1f%%", 100.0 * share); }

// Buckets by their upper bounds, those with values alone: [[bound, count], ..].
Json HistogramJson(const LogHistogram& histogram) {
  Json buckets = Json::array();
  for (size_t i = 0; i < LogHistogram::kBuckets; ++i) {
    if (histogram.counts[i] == 0) continue;
    buckets.push_back({LogHistogram::UpperBound(i), histogram.counts[i]});
  }
  return {{"count", histogram.count()},
          {"mean", histogram.Mean()},
          {"p50", histogram.Quantile(0.5)},
          {"p99", histogram.Quantile(0.99)},
          {"buckets", std::move(buckets)}};
}

void AddDistributions(const ExpertDistributions& all, Json& json) {
  json["stall_us"] = HistogramJson(all.stall_us);
  json["lifetime_us"] = HistogramJson(all.lifetime_us);
  json["lifetime_demands"] = HistogramJson(all.lifetime_demands);
  json["idle_before_evict_us"] = HistogramJson(all.idle_before_evict_us);
  json["idle_before_evict_demands"] = HistogramJson(all.idle_before_evict_demands);
  json["reuse_gap_us"] = HistogramJson(all.reuse_gap_us);
  json["reuse_gap_demands"] = HistogramJson(all.reuse_gap_demands);
}

Json UseJson(const UseCounters& use) {
  return {{"hits", use.hits},
          {"misses", use.misses},
          {"shared_misses", use.shared_misses},
          {"bytes_read", use.bytes_read},
          {"failures", use.failures},
          {"stall_ms", double(use.stall_ns) / 1e6}};
}

Json SourceJson(const SourceStats& source) {
  Json disks = Json::array();
  for (const DiskStats& disk : source.disks) {
    disks.push_back({{"reads", disk.reads},
                     {"bytes_read", disk.bytes_read},
                     {"failures", disk.failures},
                     {"bytes_under_way", disk.bytes_under_way}});
  }
  return {{"reader", source.reader},
          {"past_page_cache", source.past_page_cache},
          {"queue_depth", source.queue_depth},
          {"request_bytes", source.request_bytes},
          {"measured_bytes_per_second", source.measured_bytes_per_second},
          {"requests", source.requests},
          {"requests_under_way", source.requests_under_way},
          {"requests_stuck", source.requests_stuck},
          {"open_files", source.open_files},
          {"answered_by_another_disk", source.answered_by_another_disk},
          {"open_retries", source.open_retries},
          {"disks", std::move(disks)}};
}

Json UsersJson(const StoreTelemetry& telemetry) {
  Json clients = Json::array();
  for (const ClientTelemetry& client : telemetry.clients) {
    clients.push_back({{"id", client.id},
                       {"name", client.name},
                       {"tenant", client.tenant},
                       {"local", client.local},
                       {"unanswered", client.unanswered},
                       {"use", UseJson(client.use)}});
  }
  Json tenants = Json::array();
  for (const TenantTelemetry& tenant : telemetry.tenants) {
    tenants.push_back({{"name", tenant.name},
                       {"clients", tenant.clients},
                       {"resident_bytes", tenant.resident_bytes},
                       {"quota_bytes", tenant.quota_bytes},
                       {"disk_share", tenant.disk_share},
                       {"unanswered", tenant.unanswered},
                       {"use", UseJson(tenant.use)}});
    AddDistributions(tenant, tenants.back());
  }
  return {{"clients", std::move(clients)}, {"tenants", std::move(tenants)}};
}

// Each layer with its experts' demands and which of them are resident, by their numbers.
Json LayersJson(const StoreTelemetry& telemetry) {
  Json layers = Json::array();
  size_t next = 0;
  for (const LayerTelemetry& layer : telemetry.layers) {
    Json demands = Json::array();
    Json resident = Json::array();
    for (uint64_t i = 0; i < layer.expert_count && next < telemetry.experts.size(); ++i, ++next) {
      demands.push_back(telemetry.experts[next].demands);
      if (telemetry.experts[next].resident) resident.push_back(i);
    }
    layers.push_back({{"layer", layer.layer},
                      {"experts", layer.expert_count},
                      {"resident", layer.resident},
                      {"demands", layer.demands},
                      {"misses", layer.misses},
                      {"expert_demands", std::move(demands)},
                      {"resident_experts", std::move(resident)}});
  }
  return layers;
}

Json TelemetryJson(const StoreTelemetry& t) {
  Json json = UsersJson(t);
  for (size_t i = 0; i < kReadCauses; ++i) {
    json["reads"][kReadCauseNames[i]] = {{"reads", t.reads[i].reads},
                                         {"bytes", t.reads[i].bytes},
                                         {"under_way", t.reads[i].under_way},
                                         {"latency_us", HistogramJson(t.reads[i].latency_us)}};
  }
  json["remote_bytes"] = t.remote_bytes;
  json["prefetch"] = {{"useful_bytes", t.prefetch.useful_bytes},
                      {"late_bytes", t.prefetch.late_bytes},
                      {"wasted_bytes", t.prefetch.wasted_bytes},
                      {"delayed_demands", t.prefetch.delayed_demands},
                      {"shut_offs", t.prefetch.shut_offs}};
  json["policy"] = t.policy;
  json["shadow_policies"] = Json::array();
  for (const ShadowPolicyHits& shadow : t.shadow_policies) {
    json["shadow_policies"].push_back(
        {{"policy", shadow.policy}, {"demands", shadow.demands}, {"hits", shadow.hits}});
  }
  json["source"] = SourceJson(t.source);
  json["queues"] = {{"slot", t.queues.waiting_for_slot},
                    {"disk", t.queues.waiting_for_disk},
                    {"prefetch", t.queues.prefetches},
                    {"background", t.queues.background}};
  AddDistributions(t, json);
  json["layers"] = LayersJson(t);
  return json;
}

// The fewest, the median and the most of what layers have resident.
std::string LayersText(const std::vector<LayerTelemetry>& layers) {
  std::vector<uint64_t> resident;
  uint64_t most = 0;
  for (const LayerTelemetry& layer : layers) {
    resident.push_back(layer.resident);
    most = std::max(most, layer.expert_count);
  }
  if (resident.empty()) return "none";
  std::sort(resident.begin(), resident.end());
  return absl::StrFormat("%d, resident in one: %d to %d of %d, median %d", resident.size(),
                         resident.front(), resident.back(), most, resident[resident.size() / 2]);
}

void AddTenantRows(const std::vector<TenantTelemetry>& tenants, StatsReport& report) {
  if (tenants.size() < 2) return;
  for (const TenantTelemetry& t : tenants) {
    const std::string name = absl::StrCat("tenant ", PrintableText(t.name, 24));
    report.rows.push_back(
        {name, absl::StrFormat("%d clients, %s resident, quota %s, disk share %g", t.clients,
                               FormatBytes(t.resident_bytes),
                               t.quota_bytes == 0 ? "none" : FormatBytes(t.quota_bytes),
                               t.disk_share)});
    report.rows.push_back(
        {"", absl::StrFormat("hit rate %s of %d, %d waiting, %s read, stalled %s, %d failures",
                             PercentText(ShareOf(t.use.hits, t.use.hits + t.use.misses)),
                             t.use.hits + t.use.misses, t.unanswered,
                             FormatBytes(t.use.bytes_read),
                             ShortDuration(absl::Nanoseconds(t.use.stall_ns)), t.use.failures)});
    report.rows.push_back({"", absl::StrCat("stalls ", Percentiles(t.stall_us), "; lives ",
                                            Percentiles(t.lifetime_us))});
    report.rows.push_back({"", absl::StrCat("idle before eviction ",
                                            Percentiles(t.idle_before_evict_us), "; back after ",
                                            Percentiles(t.reuse_gap_us))});
  }
}

}  // namespace

StatsReport StoreReport(const std::string& endpoint, const RemoteStoreStats& model) {
  const StoreStats& s = model.store;
  const StoreTelemetry& t = model.telemetry;
  const double hit_rate = ShareOf(s.hits, s.hits + s.misses);
  StatsReport report;
  report.title = absl::StrCat("expert storage at ", endpoint, ": ", model.model);
  report.json = {{"endpoint", endpoint},
                 {"service", "expert_storage"},
                 {"model", model.model},
                 {"budget_bytes", s.budget_bytes},
                 {"slot_bytes", s.slot_bytes},
                 {"slot_count", s.slot_count},
                 {"resident_experts", s.resident_experts},
                 {"resident_bytes", s.resident_bytes},
                 {"pinned_experts", s.pinned_experts},
                 {"clients", s.clients},
                 {"hits", s.hits},
                 {"misses", s.misses},
                 {"hit_rate", hit_rate},
                 {"shared_misses", s.shared_misses},
                 {"evictions", s.evictions},
                 {"reads", s.reads},
                 {"bytes_read", s.bytes_read},
                 {"read_failures", s.read_failures},
                 {"checksum_failures", s.checksum_failures},
                 {"stall_ms", double(s.stall_ns) / 1e6},
                 {"prefetches", s.prefetches},
                 {"prefetch_reads", s.prefetch_reads},
                 {"prefetch_useful", s.prefetch_useful},
                 {"prefetch_wasted", s.prefetch_wasted},
                 {"prefetch_dropped", s.prefetch_dropped},
                 {"peak_rss_bytes", model.peak_rss_bytes},
                 {"uptime_seconds", absl::ToDoubleSeconds(model.uptime)},
                 {"telemetry", TelemetryJson(model.telemetry)}};
  report.rows = {
      {"budget", absl::StrFormat("%s, %d slots of %s", FormatBytes(s.budget_bytes), s.slot_count,
                                 FormatBytes(s.slot_bytes))},
      {"resident", absl::StrFormat("%d experts, %s; %d pinned", s.resident_experts,
                                   FormatBytes(s.resident_bytes), s.pinned_experts)},
      {"hit rate", absl::StrFormat("%s of %d", PercentText(hit_rate), s.hits + s.misses)},
      {"read", absl::StrFormat("%s in %d reads; %d misses shared one", FormatBytes(s.bytes_read),
                               s.reads, s.shared_misses)},
      {"read for", absl::StrFormat("demands %s, prefetch %s, background %s; sent away %s",
                                   FormatBytes(t.reads[0].bytes), FormatBytes(t.reads[1].bytes),
                                   FormatBytes(t.reads[2].bytes), FormatBytes(t.remote_bytes))},
      {"queues",
       absl::StrFormat("%d reads; waiting: %d for the disk, %d for a slot; %d to prefetch, %d in "
                       "the background",
                       t.reads[0].under_way + t.reads[1].under_way + t.reads[2].under_way,
                       t.queues.waiting_for_disk, t.queues.waiting_for_slot, t.queues.prefetches,
                       t.queues.background)},
      {"a read took", Percentiles(t.reads[0].latency_us)},
      {"a stall took", Percentiles(t.stall_us)},
      {"experts lived", Percentiles(t.lifetime_us)},
      {"idle before", Percentiles(t.idle_before_evict_us)},
      {"back after", Percentiles(t.reuse_gap_us)},
      {"evictions", absl::StrCat(s.evictions)},
      {"stalled", ShortDuration(absl::Nanoseconds(s.stall_ns))},
      {"prefetch", absl::StrFormat("%d asked, %d read, %d useful, %d wasted, %d dropped",
                                   s.prefetches, s.prefetch_reads, s.prefetch_useful,
                                   s.prefetch_wasted, s.prefetch_dropped)},
      {"of its bytes", absl::StrFormat("%s useful, %s late, %s wasted; %d demands delayed",
                                       FormatBytes(t.prefetch.useful_bytes),
                                       FormatBytes(t.prefetch.late_bytes),
                                       FormatBytes(t.prefetch.wasted_bytes),
                                       t.prefetch.delayed_demands)},
      {"failures",
       absl::StrFormat("%d reads, %d checksums", s.read_failures, s.checksum_failures)},
      {"clients", absl::StrCat(s.clients)},
      {"layers", LayersText(t.layers)},
      {"peak memory", FormatBytes(model.peak_rss_bytes)},
      {"up", ShortDuration(model.uptime)}};
  AddTenantRows(t.tenants, report);
  return report;
}

StatsReport InferenceReport(const std::string& endpoint, const InferenceStats& s) {
  StatsReport report;
  report.title = absl::StrCat("inference at ", endpoint);
  report.json = {{"endpoint", endpoint},
                 {"service", "inference"},
                 {"requests_running", s.requests_running},
                 {"requests_waiting", s.requests_waiting},
                 {"requests", s.requests},
                 {"prompt_tokens", s.prompt_tokens},
                 {"completion_tokens", s.completion_tokens},
                 {"experts",
                  {{"hits", s.experts.hits},
                   {"misses", s.experts.misses},
                   {"hit_rate", s.experts.hit_rate()},
                   {"stall_ms", s.experts.stall_ms},
                   {"bytes_read", s.experts.bytes_read},
                   {"predicted", s.experts.predicted},
                   {"recall", s.experts.recall()}}},
                 {"peak_rss_bytes", s.peak_rss_bytes},
                 {"uptime_seconds", absl::ToDoubleSeconds(s.uptime)}};
  report.rows = {
      {"requests", absl::StrFormat("%d ended, %d running, %d waiting", s.requests,
                                   s.requests_running, s.requests_waiting)},
      {"tokens", absl::StrFormat("%d of prompts, %d generated", s.prompt_tokens,
                                 s.completion_tokens)},
      {"hit rate", absl::StrFormat("%s of %d", PercentText(s.experts.hit_rate()),
                                   s.experts.hits + s.experts.misses)},
      {"read", FormatBytes(s.experts.bytes_read)},
      {"stalled", ShortDuration(absl::Milliseconds(s.experts.stall_ms))},
      {"prediction", absl::StrFormat("%d predicted, recall %s", s.experts.predicted,
                                     PercentText(s.experts.recall()))},
      {"peak memory", FormatBytes(s.peak_rss_bytes)},
      {"up", ShortDuration(s.uptime)}};
  return report;
}

}  // namespace odmoe
