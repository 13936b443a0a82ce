// How many cores this process may use: the default for numbers of threads.
#pragma once

#include <optional>
#include <string>

namespace odmoe {

// At least 1: the cores of the affinity mask, or fewer where a cgroup of version 1 or 2 bounds the
// processor time. A bound of 2.5 cores is 3: with threads for less, time granted would go unused.
int AvailableCores();

// The bound of the cgroups that `membership` (the text of /proc/self/cgroup) names, and of those
// above them, below `mount` ("/sys/fs/cgroup"), in cores; nothing where there is none.
std::optional<double> CgroupCores(const std::string& membership, const std::string& mount);

}  // namespace odmoe
