#include "services/core/io/open_beneath.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
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

absl::StatusOr<OwnedFd> OpenPart(const OwnedFd& folder, const std::string& part, int flags) {
  OwnedFd fd(::openat(folder.get(), part.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600));
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
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (create_folders && ::mkdirat(folder.get(), parts[i].c_str(), 0700) != 0 && errno != EEXIST) {
      return PosixError(errno, "create", parts[i]);
    }
    ODMOE_ASSIGN_OR_RETURN(folder, OpenPart(folder, parts[i], O_RDONLY | O_DIRECTORY));
  }
  return OpenPart(folder, parts.back(), flags);
}

absl::StatusOr<OwnedFd> OpenResolved(const std::string& path, int flags) {
  const OwnedFd root(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (root.get() < 0) return PosixError(errno, "open", "/");
  return OpenBeneath(root.get(), absl::string_view(path).substr(1), flags);
}

}  // namespace odmoe
