#include "services/core/experts/store_telemetry.h"

namespace odmoe {

UseCounters& UseCounters::operator+=(const UseCounters& other) {
  hits += other.hits;
  misses += other.misses;
  shared_misses += other.shared_misses;
  bytes_read += other.bytes_read;
  failures += other.failures;
  stall_ns += other.stall_ns;
  return *this;
}

ExpertDistributions& ExpertDistributions::operator+=(const ExpertDistributions& other) {
  stall_us += other.stall_us;
  lifetime_us += other.lifetime_us;
  lifetime_demands += other.lifetime_demands;
  idle_before_evict_us += other.idle_before_evict_us;
  idle_before_evict_demands += other.idle_before_evict_demands;
  reuse_gap_us += other.reuse_gap_us;
  reuse_gap_demands += other.reuse_gap_demands;
  return *this;
}

}  // namespace odmoe
