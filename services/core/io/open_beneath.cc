#include "services/core/io/open_beneath.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxPartBytes = 255;

absl::Status BadName(absl::string_view name, absl::string_view field, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " \"", absl::CHexEscape(name.substr(0, 100)), "\" ", why));
}

absl::StatusOr<OwnedFd> OpenPart(const OwnedFd& folder, const std::string& part, int flags,
                                 mode_t mode) {
  OwnedFd fd(::openat(folder.get(), part.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode));
  if (fd.get() >= 0) return fd;
  const int error = errno;
  // With O_DIRECTORY the kernel says ENOTDIR of a link.
  struct stat info;
  const bool link = error == ELOOP ||
                    (error == ENOTDIR &&
                     ::fstatat(folder.get(), part.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                     S_ISLNK(info.st_mode));
  if (link) {
    return absl::PermissionDeniedError(absl::StrCat(part, " is a symbolic link"));
  }
  return PosixError(error, "open", part);
}

// Goes from `folder` down the parts, which are folders. `mode`: of those that are made where they
// are not there; none are without.
absl::StatusOr<OwnedFd> Walk(OwnedFd folder, absl::Span<const std::string> parts,
                             std::optional<mode_t> mode) {
  for (const std::string& part : parts) {
    if (mode && ::mkdirat(folder.get(), part.c_str(), *mode) != 0 && errno != EEXIST) {
      return PosixError(errno, "create", part);
    }
    ODMOE_ASSIGN_OR_RETURN(folder, OpenPart(folder, part, O_PATH | O_DIRECTORY, 0));
  }
  return folder;
}

absl::StatusOr<OwnedFd> OpenRootFolder() {
  OwnedFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (root.get() < 0) return PosixError(errno, "open", "/");
  return root;
}

}  // namespace

absl::Status CheckRelativeName(absl::string_view name, absl::string_view field) {
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat(field, " has ", name.size(),
                                                   " bytes, at most ", kMaxNameBytes,
                                                   " are allowed"));
  }
  if (name.find('\0') != name.npos) return BadName(name, field, "holds a NUL character");
  if (name[0] == '/') return BadName(name, field, "is not relative");
  for (absl::string_view part : absl::StrSplit(name, '/')) {
    if (part.empty() || part == "." || part == "..") {
      return BadName(name, field, "has a part that is empty, \".\" or \"..\"");
    }
    if (part.size() > kMaxPartBytes) {
      return BadName(name, field, absl::StrCat("has a part of ", part.size(), " bytes, at most ",
                                               kMaxPartBytes, " are allowed"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<OwnedFd> OpenBeneath(int directory, absl::string_view name, int flags,
                                    bool create_folders) {
  ODMOE_RETURN_IF_ERROR(CheckRelativeName(name, "name"));
  OwnedFd folder(::fcntl(directory, F_DUPFD_CLOEXEC, 0));
  if (folder.get() < 0) return PosixError(errno, "open", std::string(name));
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  ODMOE_ASSIGN_OR_RETURN(
      folder, Walk(std::move(folder), absl::MakeConstSpan(parts).first(parts.size() - 1),
                   create_folders ? std::optional<mode_t>(0700) : std::nullopt));
  return OpenPart(folder, parts.back(), flags, 0600);
}

absl::StatusOr<OwnedFd> OpenResolved(const std::string& path, int flags, mode_t mode) {
  const std::vector<std::string> parts = absl::StrSplit(path, '/', absl::SkipEmpty());
  ODMOE_ASSIGN_OR_RETURN(OwnedFd folder, OpenRootFolder());
  if (parts.empty()) return OpenPart(folder, ".", flags, mode);
  ODMOE_ASSIGN_OR_RETURN(
      folder, Walk(std::move(folder), absl::MakeConstSpan(parts).first(parts.size() - 1),
                   std::nullopt));
  return OpenPart(folder, parts.back(), flags, mode);
}

absl::StatusOr<OwnedFd> OpenResolvedFolder(const std::string& path, bool create) {
  const std::vector<std::string> parts = absl::StrSplit(path, '/', absl::SkipEmpty());
  ODMOE_ASSIGN_OR_RETURN(OwnedFd root, OpenRootFolder());
  return Walk(std::move(root), parts, create ? std::optional<mode_t>(0777) : std::nullopt);
}

}  // namespace odmoe
