#include "services/core/base/cgroup_folders.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace odmoe {

std::string FileText(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<CgroupFolder> CgroupFolders(const std::string& membership, const std::string& mount,
                                        absl::string_view controller) {
  std::vector<CgroupFolder> folders;
  for (absl::string_view line : absl::StrSplit(membership, '\n')) {
    // "0::/a/b", or "4:cpu,cpuacct:/a/b" of version 1.
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool version2 = parts[1].empty();
    if (!version2 && !absl::c_linear_search(controllers, controller)) continue;
    const std::string root = version2 ? mount : absl::StrCat(mount, "/", parts[1]);
    for (std::string group = parts[2];;) {
      folders.push_back({absl::StrCat(root, group), version2});
      if (group.empty()) break;
      // A path without a slash, which the kernel never writes, is at its end.
      const size_t slash = group.rfind('/');
      group.resize(slash == std::string::npos ? 0 : slash);
    }
  }
  return folders;
}

}  // namespace odmoe
