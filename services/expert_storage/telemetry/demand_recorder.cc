#include "services/expert_storage/telemetry/demand_recorder.h"

#include <algorithm>

namespace odmoe {

DemandRecorder::DemandRecorder(const ExpertCatalog& catalog, size_t tenants)
    : experts_(catalog.expert_count()), tenants_(tenants) {
  layer_of_.reserve(experts_.size());
  for (const LayerExperts& layer : catalog.layers()) {
    layer_of_.insert(layer_of_.end(), layer.expert_count, static_cast<uint32_t>(layers_.size()));
    LayerTelemetry& counts = layers_.emplace_back();
    counts.layer = layer.layer;
    counts.expert_count = static_cast<uint64_t>(layer.expert_count);
  }
}

void DemandRecorder::Demanded(int64_t expert, int32_t tenant) {
  Expert& state = experts_[expert];
  ++demands_;
  ++state.demands;
  ++layers_[layer_of_[expert]].demands;
  if (state.last_demand > 0) {
    tenants_[tenant].reuse_gap_us.Add(Positive(now_us_ - state.last_demand_us));
    tenants_[tenant].reuse_gap_demands.Add(demands_ - state.last_demand);
  }
  state.last_demand = demands_;
  state.last_demand_us = now_us_;
}

void DemandRecorder::Inserted(int64_t expert) {
  experts_[expert].inserted = demands_;
  experts_[expert].inserted_us = now_us_;
}

void DemandRecorder::Evicted(int64_t expert, int32_t tenant) {
  const Expert& state = experts_[expert];
  // Idle since its last demand, or all its life where a prefetch brought it in vain.
  const uint64_t busy = std::max(state.inserted, state.last_demand);
  const int64_t busy_us = std::max(state.inserted_us, state.last_demand_us);
  ExpertDistributions& of_tenant = tenants_[tenant];
  of_tenant.lifetime_us.Add(Positive(now_us_ - state.inserted_us));
  of_tenant.lifetime_demands.Add(demands_ - state.inserted);
  of_tenant.idle_before_evict_us.Add(Positive(now_us_ - busy_us));
  of_tenant.idle_before_evict_demands.Add(demands_ - busy);
}

void DemandRecorder::ReadDone(ReadControl::Urgency cause, uint64_t bytes, int64_t us) {
  ReadTelemetry& reads = reads_[CauseIndex(cause)];
  ++reads.reads;
  reads.bytes += bytes;
  reads.latency_us.Add(Positive(us));
}

void DemandRecorder::Fill(bool with_experts, StoreTelemetry& telemetry) const {
  telemetry.reads = reads_;
  ExpertDistributions all;
  for (const ExpertDistributions& tenant : tenants_) all += tenant;
  static_cast<ExpertDistributions&>(telemetry) = all;
  telemetry.layers = layers_;
  if (!with_experts) return;
  telemetry.experts.resize(experts_.size());
  for (size_t i = 0; i < experts_.size(); ++i) telemetry.experts[i].demands = experts_[i].demands;
}

}  // namespace odmoe
