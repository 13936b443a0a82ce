#include "services/core/base/available_cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace odmoe {
namespace {

std::string FileText(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// "max 100000", "-1" or an empty text is no bound.
std::optional<double> Ratio(absl::string_view quota, absl::string_view period) {
  int64_t allowed = 0;
  int64_t per = 0;
  if (!absl::SimpleAtoi(quota, &allowed) || !absl::SimpleAtoi(period, &per)) return std::nullopt;
  if (allowed <= 0 || per <= 0) return std::nullopt;
  return static_cast<double>(allowed) / static_cast<double>(per);
}

std::optional<double> BoundOf(const std::string& folder, bool version2) {
  if (!version2) {
    return Ratio(FileText(folder + "/cpu.cfs_quota_us"), FileText(folder + "/cpu.cfs_period_us"));
  }
  const std::string text = FileText(folder + "/cpu.max");
  const std::vector<absl::string_view> words =
      absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  return words.size() == 2 ? Ratio(words[0], words[1]) : std::nullopt;
}

}  // namespace

std::optional<double> CgroupCores(const std::string& membership, const std::string& mount) {
  std::optional<double> least;
  for (absl::string_view line : absl::StrSplit(membership, '\n')) {
    // "0::/a/b", or "4:cpu,cpuacct:/a/b" of version 1.
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool version2 = parts[1].empty();
    if (!version2 && !absl::c_linear_search(controllers, "cpu")) continue;
    const std::string root = version2 ? mount : absl::StrCat(mount, "/", parts[1]);
    // A container sees its own group as the root of the mount, whatever its path is outside.
    for (std::string group = parts[2];;) {
      if (const auto here = BoundOf(absl::StrCat(root, group), version2)) {
        least = least ? std::min(*least, *here) : *here;
      }
      if (group.empty()) break;
      group.resize(std::min(group.size() - 1, group.rfind('/')));
    }
  }
  return least;
}

int AvailableCores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  if (const auto bound = CgroupCores(FileText("/proc/self/cgroup"), "/sys/fs/cgroup")) {
    cores = std::min(cores, static_cast<int>(std::ceil(std::min(*bound, 1e6))));
  }
  return std::max(1, cores);
}

}  // namespace odmoe
