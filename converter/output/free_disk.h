// Whether an output fits before it is begun.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "services/core/io/file.h"

namespace odmoe {

// FAILED_PRECONDITION: `bytes`, of which an earlier run has `written_bytes` on the disk already,
// are more than is free where `destination` lies; has the numbers. Otherwise the file system's
// error.
absl::Status CheckFreeDisk(FileSystem& fs, const std::string& destination, uint64_t bytes,
                           uint64_t written_bytes);

}  // namespace odmoe
