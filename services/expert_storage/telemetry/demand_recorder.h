// Records what happens to experts: how often they are demanded, how long they stay.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/store_telemetry.h"

namespace odmoe {

// A few nanoseconds a call (bench/store_telemetry), 40 bytes an expert, 2 KiB a tenant. Time is
// what SetNow was told last: the store looks at the clock once for all it does under its lock, and
// so the accesses of a client's ring happen when they are taken from it. Not thread-safe: the store
// calls it under its lock. Experts are catalog indices.
class DemandRecorder {
 public:
  // Tenants are numbers below `tenants`.
  explicit DemandRecorder(const ExpertCatalog& catalog, size_t tenants = 1);

  // Of any clock; where it goes back, what spans that counts as no time.
  void SetNow(int64_t now_ns) { now_us_ = now_ns / 1000; }
  int64_t now_us() const { return now_us_; }

  // A tenant's client asked for the expert, resident or not.
  void Demanded(int64_t expert, int32_t tenant = 0);
  // And was not resident.
  void Missed(int64_t expert) { ++layers_[layer_of_[expert]].misses; }
  // Expert became resident; is resident no more, to make room, at which tenant's charge it was.
  void Inserted(int64_t expert);
  void Evicted(int64_t expert, int32_t tenant = 0);
  // A read has succeeded; `us`: since it was handed to the source.
  void ReadDone(ReadControl::Urgency cause, uint64_t bytes, int64_t us);
  // A miss of a tenant's was answered, so long after its arrival.
  void Answered(int64_t us, int32_t tenant = 0) { tenants_[tenant].stall_us.Add(Positive(us)); }

  // Fills what is recorded here of all tenants together, layers' demands and misses too; with
  // `with_experts` each expert's demands. Residency and gauges are the caller's.
  void Fill(bool with_experts, StoreTelemetry& telemetry) const;
  // One tenant's part.
  const ExpertDistributions& OfTenant(int32_t tenant) const { return tenants_[tenant]; }

 private:
  struct Expert {
    uint64_t demands = 0;
    uint64_t last_demand = 0;  // its number among all, from 1; 0: never
    int64_t last_demand_us = 0;
    uint64_t inserted = 0;     // number of the last demand before
    int64_t inserted_us = 0;
  };

  static uint64_t Positive(int64_t us) { return us < 0 ? 0 : static_cast<uint64_t>(us); }

  int64_t now_us_ = 0;
  uint64_t demands_ = 0;
  std::vector<Expert> experts_;
  std::vector<uint32_t> layer_of_;
  std::vector<LayerTelemetry> layers_;
  std::array<ReadTelemetry, kReadCauses> reads_;
  std::vector<ExpertDistributions> tenants_;
};

}  // namespace odmoe
