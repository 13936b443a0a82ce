// Many durations as a few figures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace odmoe {

// "n 1000, median 1.20 us, p99 3.40, p99.9 8.00, max 20.00"; sorts `nanoseconds`.
std::string Percentiles(std::vector<int64_t>& nanoseconds);

// "model name" of /proc/cpuinfo.
std::string CpuName();

}  // namespace odmoe
