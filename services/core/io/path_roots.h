// The folders that requests from outside may name files in.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Immutable, so thread-safe. Without roots every path is allowed, as for a user's own process.
class PathRoots {
 public:
  static constexpr size_t kMaxPathBytes = 4096;

  // NOT_FOUND, INVALID_ARGUMENT: a root that is not an existing folder.
  static absl::StatusOr<PathRoots> Create(const std::vector<std::string>& roots);

  // `path` with every symbolic link of its existing part followed, and the names below that which
  // do not exist yet. `field` names it in errors, which show the path as given and nothing else of
  // this host.
  // INVALID_ARGUMENT: empty, longer than kMaxPathBytes, holds a NUL, not absolute though there are
  // roots, or has ".." below a folder that does not exist. PERMISSION_DENIED: not below a root, or
  // a symbolic link that leads nowhere.
  absl::StatusOr<std::string> Resolve(absl::string_view path, absl::string_view field) const;

  bool restricted() const { return !roots_.empty(); }

 private:
  bool Allows(absl::string_view resolved) const;

  std::vector<std::string> roots_;  // resolved, without a trailing slash
};

// True where `inner` is `outer` or lies below it; both resolved.
bool IsSameOrBelow(absl::string_view inner, absl::string_view outer);

}  // namespace odmoe
