// What a store of experts tells of itself beyond its counters: distributions, queues, who uses it
// and which experts are wanted. A snapshot; plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "services/core/base/log_histogram.h"
#include "services/core/experts/read_control.h"
#include "services/core/experts/source_stats.h"

namespace odmoe {

// How many kinds of reads there are, and the name of each: "demand", "prefetch", "background".
inline constexpr size_t kReadCauses = 3;
inline constexpr std::array<const char*, kReadCauses> kReadCauseNames = {"demand", "prefetch",
                                                                         "background"};
inline constexpr size_t CauseIndex(ReadControl::Urgency urgency) {
  return static_cast<size_t>(urgency);
}

// Reads from the source with one cause: what began them, even where a demand joined later.
struct ReadTelemetry {
  uint64_t reads = 0;      // that succeeded
  uint64_t bytes = 0;      // of those
  uint64_t under_way = 0;  // gauge
  LogHistogram latency_us; // from handing a read to the source to its end
};

// What is waiting for what. Gauges.
struct QueueTelemetry {
  uint64_t waiting_for_slot = 0;  // experts demanded, all slots pinned or being filled, and
                                  // demands of clients that hold too much
  uint64_t waiting_for_disk = 0;  // experts demanded that have a slot and no read yet
  uint64_t prefetches = 0;        // wishes not begun
  uint64_t background = 0;        // experts still to be put back after a restart
};

// What reading ahead has brought and cost.
struct PrefetchTelemetry {
  uint64_t useful_bytes = 0;     // demanded before their eviction
  uint64_t late_bytes = 0;       // given up, or read when their layer had been demanded already
  uint64_t wasted_bytes = 0;     // evicted without a demand
  uint64_t delayed_demands = 0;  // that found the disk at a prefetch
  uint64_t shut_offs = 0;        // times it was stopped a while, since it did not pay
};

// One layer. `demands` and `misses` count since the opening.
struct LayerTelemetry {
  int32_t layer = 0;
  uint64_t expert_count = 0;
  uint64_t resident = 0;  // gauge
  uint64_t demands = 0;   // experts asked for, resident or not
  uint64_t misses = 0;
};

// What a client or a tenant has had of the store.
struct UseCounters {
  uint64_t hits = 0;           // pinned without waiting
  uint64_t misses = 0;         // asked for and not resident
  uint64_t shared_misses = 0;  // misses that joined a read under way
  uint64_t bytes_read = 0;     // of reads its misses began
  uint64_t failures = 0;       // misses answered with an error
  uint64_t stall_ns = 0;       // time it waited for misses, summed

  UseCounters& operator+=(const UseCounters& other);
};

struct ClientTelemetry {
  uint64_t id = 0;      // never used again in this store
  std::string name;     // as the client calls itself
  std::string tenant;
  bool local = false;   // the store's own process: ReadExpert, and who uses the library
  UseCounters use;
  uint64_t unanswered = 0;  // gauge: misses under way
};

// How long misses, and the lives of experts, took.
struct ExpertDistributions {
  LogHistogram stall_us;  // of a miss, from its arrival at the store to its answer
  // Of experts that were evicted: how long they were resident, and how long they were so after
  // their last demand. In time, and in demands of all experts.
  LogHistogram lifetime_us;
  LogHistogram lifetime_demands;
  LogHistogram idle_before_evict_us;
  LogHistogram idle_before_evict_demands;
  // Between two demands of one expert, resident meanwhile or not.
  LogHistogram reuse_gap_us;
  LogHistogram reuse_gap_demands;

  ExpertDistributions& operator+=(const ExpertDistributions& other);
  friend bool operator==(const ExpertDistributions&, const ExpertDistributions&) = default;
};

// The distributions are of the misses of its clients, of experts evicted at its charge, and of
// demands of its clients for experts that anybody had demanded before.
struct TenantTelemetry : ExpertDistributions {
  std::string name;
  uint64_t clients = 0;         // gauge: sessions open
  uint64_t resident_bytes = 0;  // gauge
  uint64_t quota_bytes = 0;     // 0: none
  double disk_share = 0.0;      // its weight when tenants compete for the disk; 0: not known
  UseCounters use;              // of its clients, those that left too
  uint64_t unanswered = 0;      // gauge: its clients' misses under way
};

// How often one expert was demanded, and whether it is resident now.
struct ExpertHeat {
  uint64_t demands = 0;
  bool resident = false;

  friend bool operator==(const ExpertHeat&, const ExpertHeat&) = default;
};

// What another eviction policy would have hit, had it been in use.
struct ShadowPolicyHits {
  std::string policy;
  uint64_t demands = 0;  // followed so far
  uint64_t hits = 0;     // of those

  friend bool operator==(const ShadowPolicyHits&, const ShadowPolicyHits&) = default;
};

// The distributions are those of all tenants.
struct StoreTelemetry : ExpertDistributions {
  std::array<ReadTelemetry, kReadCauses> reads;  // by CauseIndex
  SourceStats source;
  uint64_t remote_bytes = 0;  // sent to other hosts by ReadExpert
  QueueTelemetry queues;
  PrefetchTelemetry prefetch;
  std::vector<LayerTelemetry> layers;    // as in the catalog
  std::vector<ClientTelemetry> clients;  // attached now
  std::vector<TenantTelemetry> tenants;
  std::string policy;                    // in use
  std::vector<ShadowPolicyHits> shadow_policies;  // the others; empty: switched off
  std::vector<ExpertHeat> experts;       // by catalog index; empty unless asked for
};

}  // namespace odmoe
