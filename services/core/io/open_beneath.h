// Opening files below a folder, whatever links others put there.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/io/owned_fd.h"

namespace odmoe {

// INVALID_ARGUMENT, naming `field`: `name` is not relative, is empty or longer than 1,024 bytes,
// holds a NUL, or has a part that is empty, ".", ".." or longer than 255 bytes.
absl::Status CheckRelativeName(absl::string_view name, absl::string_view field);

// Opens `name`, relative to the folder `directory`, part by part and following no symbolic link at
// any of them, so that nothing that is swapped meanwhile can lead elsewhere. `flags` are open's,
// for the last part; files are created with mode 0600. `create_folders`: those on the way that are
// not there are made, with mode 0700.
// NOT_FOUND: also where a file is in the way. PERMISSION_DENIED: rights, or a part is a link.
// INVALID_ARGUMENT: see CheckRelativeName; or a folder where a file is asked for.
absl::StatusOr<OwnedFd> OpenBeneath(int directory, absl::string_view name, int flags,
                                    bool create_folders = false);

// The same from "/", for a path that PathRoots::Resolve gave: it has no links, unless one was put
// there since. May be as long as that allows. `mode` is that of a file that is created.
absl::StatusOr<OwnedFd> OpenResolved(const std::string& path, int flags, mode_t mode = 0600);

// The folder at such a path, to name files in (O_PATH). `create`: with those on the way, mode 0777
// but for the umask.
absl::StatusOr<OwnedFd> OpenResolvedFolder(const std::string& path, bool create = false);

}  // namespace odmoe
