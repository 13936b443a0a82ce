// A failed system call as a status.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Status for errno value `error` of a call that tried to `action` the file at `path`:
// "cannot open /x/y: No such file or directory". Missing files and folders are NOT_FOUND, rights
// PERMISSION_DENIED, full disks, quotas and descriptor tables RESOURCE_EXHAUSTED, device errors
// DATA_LOSS, paths of the wrong kind INVALID_ARGUMENT, anything else INTERNAL.
absl::Status PosixError(int error, absl::string_view action, const std::string& path);

}  // namespace odmoe
