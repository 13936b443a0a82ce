#include "services/core/base/process_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace odmoe {
namespace {

// The figure of a "Name:   123 kB" line, in bytes.
std::optional<uint64_t> KilobyteField(const std::string& path, absl::string_view name) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind(std::string(name), 0) != 0) continue;
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    uint64_t kilobytes = 0;
    if (words.size() >= 2 && absl::SimpleAtoi(words[1], &kilobytes)) return kilobytes * 1024;
  }
  return std::nullopt;
}

std::optional<uint64_t> NumberInFile(const std::string& path) {
  std::ifstream in(path);
  std::string text;
  uint64_t value = 0;
  if (!(in >> text) || !absl::SimpleAtoi(text, &value)) return std::nullopt;  // "max" is no limit
  return value;
}

// What the cgroup-v2 limits on the way from this process's group to the root still leave.
std::optional<uint64_t> CgroupLeft() {
  std::ifstream in("/proc/self/cgroup");
  std::string line;
  std::optional<uint64_t> left;
  while (std::getline(in, line)) {
    if (line.rfind("0::", 0) != 0) continue;
    for (std::string group = line.substr(3); !group.empty();) {
      const std::string folder = absl::StrCat("/sys/fs/cgroup", group);
      const auto limit = NumberInFile(folder + "/memory.max");
      const auto used = NumberInFile(folder + "/memory.current");
      if (limit && used) {
        const uint64_t here = *limit > *used ? *limit - *used : 0;
        left = left ? std::min(*left, here) : here;
      }
      const size_t slash = group.rfind('/');
      if (slash == std::string::npos || group == "/") break;
      group = slash == 0 ? "/" : group.substr(0, slash);
    }
  }
  return left;
}

}  // namespace

uint64_t PeakRssBytes() { return KilobyteField("/proc/self/status", "VmHWM:").value_or(0); }

uint64_t RssBytes() { return KilobyteField("/proc/self/status", "VmRSS:").value_or(0); }

absl::StatusOr<uint64_t> AvailableMemoryBytes() {
  const auto machine = KilobyteField("/proc/meminfo", "MemAvailable:");
  if (!machine) return absl::UnavailableError("/proc/meminfo does not say MemAvailable");
  const auto group = CgroupLeft();
  return group ? std::min(*machine, *group) : *machine;
}

}  // namespace odmoe
