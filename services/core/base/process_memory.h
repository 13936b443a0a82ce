// What this process and its cgroup take and may take of the machine's memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

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

// What the memory limits of the cgroups leave that `membership` (the text of /proc/self/cgroup)
// names, and of those above them, of version 1 and 2, below `mount` ("/sys/fs/cgroup"); nothing
// where there is no limit. Pages of files that the kernel can drop count as left.
std::optional<uint64_t> CgroupMemoryLeft(const std::string& membership, const std::string& mount);

}  // namespace odmoe
