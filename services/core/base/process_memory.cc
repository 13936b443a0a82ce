#include "services/core/base/process_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/core/base/cgroup_folders.h"

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
  const std::string text = FileText(path);
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) return std::nullopt;  // "max" is no limit
  return value;
}

// The figure of a "name 123" line, in bytes; 0 where there is none.
uint64_t StatField(const std::string& stat, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(stat, '\n')) {
    uint64_t bytes = 0;
    if (absl::ConsumePrefix(&line, name) && absl::SimpleAtoi(line, &bytes)) return bytes;
  }
  return 0;
}

// What one group's limit still leaves. Pages of files are counted as used, but go when they must.
std::optional<uint64_t> LeftIn(const CgroupFolder& folder) {
  const bool v2 = folder.version2;
  const auto limit =
      NumberInFile(folder.path + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  const auto used =
      NumberInFile(folder.path + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!limit || !used) return std::nullopt;
  const std::string stat = FileText(folder.path + "/memory.stat");
  const uint64_t files =
      v2 ? StatField(stat, "inactive_file ") + StatField(stat, "active_file ")
         : StatField(stat, "total_inactive_file ") + StatField(stat, "total_active_file ");
  const uint64_t kept = *used - std::min(*used, files);
  return *limit > kept ? *limit - kept : 0;
}

}  // namespace

uint64_t PeakRssBytes() { return KilobyteField("/proc/self/status", "VmHWM:").value_or(0); }

uint64_t RssBytes() { return KilobyteField("/proc/self/status", "VmRSS:").value_or(0); }

std::optional<uint64_t> CgroupMemoryLeft(const std::string& membership, const std::string& mount) {
  std::optional<uint64_t> left;
  for (const CgroupFolder& folder : CgroupFolders(membership, mount, "memory")) {
    const auto here = LeftIn(folder);
    if (here) left = left ? std::min(*left, *here) : *here;
  }
  return left;
}

absl::StatusOr<uint64_t> AvailableMemoryBytes() {
  const auto machine = KilobyteField("/proc/meminfo", "MemAvailable:");
  if (!machine) return absl::UnavailableError("/proc/meminfo does not say MemAvailable");
  const auto group = CgroupMemoryLeft(FileText("/proc/self/cgroup"), "/sys/fs/cgroup");
  return group ? std::min(*machine, *group) : *machine;
}

}  // namespace odmoe
