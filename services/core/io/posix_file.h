// Files of descriptors that are open already.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/io/file.h"
#include "services/core/io/owned_fd.h"

namespace odmoe {

// `path` is for messages. INVALID_ARGUMENT: not a regular file.
absl::StatusOr<std::unique_ptr<RandomAccessFile>> ReadableFile(OwnedFd fd, std::string path);
std::unique_ptr<WritableFile> WritableFileOf(OwnedFd fd, std::string path);

}  // namespace odmoe
