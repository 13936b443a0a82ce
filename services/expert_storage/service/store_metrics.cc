#include "services/expert_storage/service/store_metrics.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/http/metric_families.h"

namespace odmoe {
namespace {

using Labels = MetricFamilies::Labels;
using MetricType = MetricFamilies::Type;

Labels Of(const ModelMetrics& model) { return {{"model", model.model}}; }
Labels Of(const ModelMetrics& model, const char* name, std::string value) {
  return {{"model", model.model}, {name, std::move(value)}};
}

struct Figure {
  MetricType type;
  const char* name;
  const char* help;
  uint64_t StoreStats::*value;
};

constexpr Figure kFigures[] = {
    {MetricType::Gauge, "budget_bytes", "Memory experts may take", &StoreStats::budget_bytes},
    {MetricType::Gauge, "slots", "Experts that can be resident", &StoreStats::slot_count},
    {MetricType::Gauge, "resident_experts", "Experts in memory", &StoreStats::resident_experts},
    {MetricType::Gauge, "resident_bytes", "Memory of their slots", &StoreStats::resident_bytes},
    {MetricType::Gauge, "pinned_experts", "Experts in use", &StoreStats::pinned_experts},
    {MetricType::Gauge, "clients", "Sessions open", &StoreStats::clients},
    {MetricType::Counter, "hits_total", "Experts pinned without waiting", &StoreStats::hits},
    {MetricType::Counter, "misses_total", "Experts asked for and not resident",
     &StoreStats::misses},
    {MetricType::Counter, "shared_misses_total", "Misses that joined a read under way",
     &StoreStats::shared_misses},
    {MetricType::Counter, "evictions_total", "Experts evicted", &StoreStats::evictions},
    {MetricType::Counter, "read_failures_total", "Reads that failed",
     &StoreStats::read_failures},
    {MetricType::Counter, "checksum_failures_total", "Experts whose bytes were corrupt",
     &StoreStats::checksum_failures},
    {MetricType::Counter, "prefetches_total", "Experts asked to be prefetched",
     &StoreStats::prefetches},
    {MetricType::Counter, "prefetches_useful_total", "Prefetched, then demanded",
     &StoreStats::prefetch_useful},
    {MetricType::Counter, "prefetches_wasted_total", "Prefetched, and evicted undemanded",
     &StoreStats::prefetch_wasted},
    {MetricType::Counter, "prefetches_dropped_total", "Not read: resident, late, or no slot",
     &StoreStats::prefetch_dropped},
};

void AddReads(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto each = [&](auto add) {
    for (const ModelMetrics& model : models) {
      for (size_t i = 0; i < kReadCauses; ++i) {
        add(Of(model, "cause", kReadCauseNames[i]), model.telemetry.reads[i]);
      }
    }
  };
  families.Begin(MetricType::Counter, "reads_total", "Experts read, by what began the read");
  each([&](Labels l, const ReadTelemetry& r) { families.Add(std::move(l), double(r.reads)); });
  families.Begin(MetricType::Counter, "read_bytes_total", "Bytes of those reads");
  each([&](Labels l, const ReadTelemetry& r) { families.Add(std::move(l), double(r.bytes)); });
  families.Begin(MetricType::Gauge, "reads_under_way", "Reads handed to the disk");
  each([&](Labels l, const ReadTelemetry& r) { families.Add(std::move(l), double(r.under_way)); });
  families.Begin(MetricType::Histogram, "read_seconds", "From handing over a read to its end");
  each([&](Labels l, const ReadTelemetry& r) { families.Add(std::move(l), r.latency_us, 1e-6); });
  families.Begin(MetricType::Counter, "remote_bytes_total", "Bytes sent to other hosts");
  for (const ModelMetrics& m : models) families.Add(Of(m), double(m.telemetry.remote_bytes));
}

void AddSource(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto add = [&](MetricType type, const char* name, const char* help,
                       uint64_t SourceStats::*value) {
    families.Begin(type, name, help);
    for (const ModelMetrics& m : models) {
      families.Add(Of(m), double(m.telemetry.source.*value));
    }
  };
  add(MetricType::Counter, "device_requests_total", "Requests to devices",
      &SourceStats::requests);
  add(MetricType::Gauge, "device_requests_under_way", "Of these, now",
      &SourceStats::requests_under_way);
  add(MetricType::Gauge, "device_requests_stuck", "Of these, for a second or longer",
      &SourceStats::requests_stuck);
  add(MetricType::Gauge, "open_expert_files", "Expert files open", &SourceStats::open_files);
  add(MetricType::Counter, "open_retries_total", "For want of descriptors or memory",
      &SourceStats::open_retries);
  add(MetricType::Counter, "answered_by_another_disk_total", "Reads that one disk failed",
      &SourceStats::answered_by_another_disk);
  const auto disks = [&](MetricType type, const char* name, const char* help,
                         uint64_t DiskStats::*value) {
    families.Begin(type, name, help);
    for (const ModelMetrics& m : models) {
      const std::vector<DiskStats>& all = m.telemetry.source.disks;
      for (size_t i = 0; i < all.size(); ++i) {
        families.Add(Of(m, "disk", absl::StrCat(i)), double(all[i].*value));
      }
    }
  };
  disks(MetricType::Counter, "disk_read_bytes_total", "Bytes read from a directory",
        &DiskStats::bytes_read);
  disks(MetricType::Counter, "disk_failures_total", "Its reads that failed",
        &DiskStats::failures);
}

void AddPrefetch(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto each = [&](const char* name, const char* help, uint64_t PrefetchTelemetry::*value) {
    families.Begin(MetricType::Counter, name, help);
    for (const ModelMetrics& m : models) {
      families.Add(Of(m), double(m.telemetry.prefetch.*value));
    }
  };
  each("prefetch_useful_bytes_total", "Read ahead, then demanded",
       &PrefetchTelemetry::useful_bytes);
  each("prefetch_late_bytes_total", "Read ahead too late", &PrefetchTelemetry::late_bytes);
  each("prefetch_wasted_bytes_total", "Read ahead, and evicted undemanded",
       &PrefetchTelemetry::wasted_bytes);
  each("prefetch_delayed_demands_total", "Demands that found the disk at a prefetch",
       &PrefetchTelemetry::delayed_demands);
  each("prefetch_shut_offs_total", "Times prefetching was stopped a while",
       &PrefetchTelemetry::shut_offs);
}

void AddShadowPolicies(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto each = [&](const char* name, const char* help, uint64_t ShadowPolicyHits::*value) {
    families.Begin(MetricType::Counter, name, help);
    for (const ModelMetrics& model : models) {
      for (const ShadowPolicyHits& shadow : model.telemetry.shadow_policies) {
        families.Add(Of(model, "policy", shadow.policy), double(shadow.*value));
      }
    }
  };
  each("shadow_policy_demands_total", "Demands another eviction policy has followed",
       &ShadowPolicyHits::demands);
  each("shadow_policy_hits_total", "Of those, what it would have hit", &ShadowPolicyHits::hits);
}

void AddQueues(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  families.Begin(MetricType::Gauge, "queued_experts", "Experts waiting, by what for");
  for (const ModelMetrics& model : models) {
    const QueueTelemetry& queues = model.telemetry.queues;
    families.Add(Of(model, "queue", "slot"), double(queues.waiting_for_slot));
    families.Add(Of(model, "queue", "disk"), double(queues.waiting_for_disk));
    families.Add(Of(model, "queue", "prefetch"), double(queues.prefetches));
    families.Add(Of(model, "queue", "background"), double(queues.background));
  }
}

struct DistributionFamily {
  const char* name;
  const char* help;
  LogHistogram ExpertDistributions::*histogram;
  double unit;
};

constexpr DistributionFamily kDistributions[] = {
    {"stall_seconds", "Of a miss, from its arrival to its answer", &ExpertDistributions::stall_us,
     1e-6},
    {"lifetime_seconds", "Residency of experts evicted", &ExpertDistributions::lifetime_us, 1e-6},
    {"lifetime_demands", "The same, in demands of all experts",
     &ExpertDistributions::lifetime_demands, 1.0},
    {"idle_before_evict_seconds", "Of experts evicted, since their last demand",
     &ExpertDistributions::idle_before_evict_us, 1e-6},
    {"idle_before_evict_demands", "The same, in demands of all experts",
     &ExpertDistributions::idle_before_evict_demands, 1.0},
    {"reuse_gap_seconds", "Between two demands of one expert",
     &ExpertDistributions::reuse_gap_us, 1e-6},
    {"reuse_gap_demands", "The same, in demands of all experts",
     &ExpertDistributions::reuse_gap_demands, 1.0},
};

// Of each model, and of each tenant's part.
void AddDistributions(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  for (const DistributionFamily& family : kDistributions) {
    families.Begin(MetricType::Histogram, family.name, family.help);
    for (const ModelMetrics& model : models) {
      families.Add(Of(model), model.telemetry.*family.histogram, family.unit);
    }
  }
  for (const DistributionFamily& family : kDistributions) {
    families.Begin(MetricType::Histogram, absl::StrCat("tenant_", family.name),
                   absl::StrCat("A tenant's: ", family.help));
    for (const ModelMetrics& model : models) {
      for (const TenantTelemetry& tenant : model.telemetry.tenants) {
        families.Add(Of(model, "tenant", tenant.name), tenant.*family.histogram, family.unit);
      }
    }
  }
}

void AddLayers(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto add = [&](MetricType type, const char* name, const char* help,
                       uint64_t LayerTelemetry::*value) {
    families.Begin(type, name, help);
    for (const ModelMetrics& model : models) {
      for (const LayerTelemetry& layer : model.telemetry.layers) {
        families.Add(Of(model, "layer", absl::StrCat(layer.layer)), double(layer.*value));
      }
    }
  };
  add(MetricType::Gauge, "layer_resident_experts", "Experts of a layer in memory",
      &LayerTelemetry::resident);
  add(MetricType::Counter, "layer_demands_total", "Experts of a layer asked for",
      &LayerTelemetry::demands);
  add(MetricType::Counter, "layer_misses_total", "Of those, not resident",
      &LayerTelemetry::misses);
}

void AddTenants(const std::vector<ModelMetrics>& models, MetricFamilies& families) {
  const auto add = [&](MetricType type, const char* name, const char* help, auto value) {
    families.Begin(type, name, help);
    for (const ModelMetrics& model : models) {
      for (const TenantTelemetry& tenant : model.telemetry.tenants) {
        families.Add(Of(model, "tenant", tenant.name), double(value(tenant)));
      }
    }
  };
  using Tenant = const TenantTelemetry&;
  add(MetricType::Gauge, "tenant_clients", "Sessions of a tenant",
      [](Tenant t) { return t.clients; });
  add(MetricType::Gauge, "tenant_resident_bytes", "Memory of experts a tenant brought in",
      [](Tenant t) { return t.resident_bytes; });
  add(MetricType::Gauge, "tenant_quota_bytes", "Most that may be; 0: no bound",
      [](Tenant t) { return t.quota_bytes; });
  add(MetricType::Gauge, "tenant_unanswered_misses", "Experts its clients wait for now",
      [](Tenant t) { return t.unanswered; });
  add(MetricType::Counter, "tenant_hits_total", "Experts its clients pinned without waiting",
      [](Tenant t) { return t.use.hits; });
  add(MetricType::Counter, "tenant_misses_total", "Experts they asked for, not resident",
      [](Tenant t) { return t.use.misses; });
  add(MetricType::Counter, "tenant_read_bytes_total", "Bytes of reads their misses began",
      [](Tenant t) { return t.use.bytes_read; });
  add(MetricType::Counter, "tenant_failures_total", "Misses answered with an error",
      [](Tenant t) { return t.use.failures; });
  add(MetricType::Counter, "tenant_stall_seconds_total", "Time they waited for misses",
      [](Tenant t) { return double(t.use.stall_ns) * 1e-9; });
}

}  // namespace

std::string StoreMetricsText(const std::vector<ModelMetrics>& models) {
  MetricFamilies families("odmoe_expert_storage_");
  for (const Figure& figure : kFigures) {
    families.Begin(figure.type, figure.name, figure.help);
    for (const ModelMetrics& m : models) families.Add(Of(m), double(m.stats.*figure.value));
  }
  families.Begin(MetricType::Counter, "client_stall_seconds_total",
                 "Time clients waited for misses, as they measured it");
  for (const ModelMetrics& m : models) families.Add(Of(m), double(m.stats.stall_ns) * 1e-9);
  AddReads(models, families);
  AddSource(models, families);
  AddPrefetch(models, families);
  AddShadowPolicies(models, families);
  AddQueues(models, families);
  AddDistributions(models, families);
  AddLayers(models, families);
  AddTenants(models, families);
  return families.Text();
}

std::string CollectStoreMetrics(const StoreHost& models) {
  std::vector<ModelMetrics> metrics;
  for (const auto& model : models.List()) {
    const auto stats = model->store->Stats();
    if (!stats.ok()) continue;
    metrics.push_back({model->name, *stats, model->store->Telemetry(false)});
  }
  return StoreMetricsText(metrics) + ProcessMetricsText();
}

}  // namespace odmoe
