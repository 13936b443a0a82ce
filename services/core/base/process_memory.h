// What this process and its cgroup take and may take of the machine's memory.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace odmoe {

// Largest resident set this process has had, in bytes (VmHWM of /proc/self/status); 0 when the
// kernel does not say.
uint64_t PeakRssBytes();

// Resident set now, in bytes; 0 when the kernel does not say.
uint64_t RssBytes();

// Bytes this process could still take: the smaller of the machine's MemAvailable and what the
// cgroup limits above it leave. UNAVAILABLE: /proc is not readable.
absl::StatusOr<uint64_t> AvailableMemoryBytes();

}  // namespace odmoe
