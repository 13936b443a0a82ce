// Where the kernel keeps the limits of the groups a process is in.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

struct CgroupFolder {
  std::string path;
  bool version2 = false;
};

// The folders of the cgroups that `membership` (the text of /proc/self/cgroup) names for a
// controller ("cpu", "memory"), and of those above them, below `mount` ("/sys/fs/cgroup"), of
// version 1 and 2. Some may not exist: a container sees its own group as the root of the mount,
// whatever its path is outside.
std::vector<CgroupFolder> CgroupFolders(const std::string& membership, const std::string& mount,
                                        absl::string_view controller);

// All of a file, empty where it cannot be read.
std::string FileText(const std::string& path);

}  // namespace odmoe
