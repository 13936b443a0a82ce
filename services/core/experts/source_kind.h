// How experts are read from disk.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

enum class SourceKind {
  kAuto,    // direct where the file system allows it, else mapped
  kDirect,  // O_DIRECT, past the page cache
  kMapped,  // mmap, through the page cache
};

// "auto", "direct", "mmap": as the flag --source spells them.
absl::string_view SourceKindName(SourceKind kind);

// The inverse. INVALID_ARGUMENT: anything else.
absl::StatusOr<SourceKind> ParseSourceKind(absl::string_view text);

}  // namespace odmoe
