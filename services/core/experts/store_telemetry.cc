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

}  // namespace odmoe
