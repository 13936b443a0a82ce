// Files below the roots, for clients of other hosts to fetch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/io/owned_fd.h"
#include "services/core/io/path_roots.h"
#include "services/core/jobs/file_transfer.h"

namespace odmoe {

struct ServedFile {
  OwnedFd file;
  uint64_t size_bytes = 0;
};

// A regular file below the roots. Errors of PathRoots::Resolve; NOT_FOUND; PERMISSION_DENIED also
// where a link was put in the path's way meanwhile; INVALID_ARGUMENT: not a regular file.
absl::StatusOr<ServedFile> OpenServedFile(const PathRoots& roots, const std::string& path);

// The regular files at or below `path`, by name; links are left out. RESOURCE_EXHAUSTED: more than
// a hundred thousand. And errors as above.
absl::StatusOr<std::vector<RemoteFile>> ListServedFiles(const PathRoots& roots,
                                                        const std::string& path);

}  // namespace odmoe
