#include "services/core/base/available_cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "services/core/base/cgroup_folders.h"

namespace odmoe {
namespace {

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
  for (const CgroupFolder& folder : CgroupFolders(membership, mount, "cpu")) {
    const auto here = BoundOf(folder.path, folder.version2);
    if (here) least = least ? std::min(*least, *here) : *here;
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
