// Files on their way between a client and the conversion service.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace odmoe {

// A file of an upload: how much of it is kept, and whether that is all and it has its name.
struct UploadedFile {
  std::string name;  // relative, with "/" between folders
  uint64_t kept_bytes = 0;
  bool complete = false;
};

// A folder on the service's host that a client fills.
struct Upload {
  std::string directory;  // where jobs find the files
  std::vector<UploadedFile> files;
  absl::Time expires;  // unless it is used before
};

// A file on the service's host.
struct RemoteFile {
  std::string name;  // relative to the path asked for; "": that path itself
  uint64_t size_bytes = 0;
};

}  // namespace odmoe
