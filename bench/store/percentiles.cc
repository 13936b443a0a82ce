#include "bench/store/percentiles.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_format.h"

namespace odmoe {

std::string Percentiles(std::vector<int64_t>& nanoseconds) {
  if (nanoseconds.empty()) return "n 0";
  std::sort(nanoseconds.begin(), nanoseconds.end());
  const auto at = [&](double share) {
    const size_t index = static_cast<size_t>(share * double(nanoseconds.size() - 1));
    return double(nanoseconds[index]) / 1e3;
  };
  return absl::StrFormat("n %d, median %.2f us, p99 %.2f, p99.9 %.2f, max %.2f",
                         nanoseconds.size(), at(0.5), at(0.99), at(0.999), at(1.0));
}

std::string CpuName() {
  std::ifstream in("/proc/cpuinfo");
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

}  // namespace odmoe
