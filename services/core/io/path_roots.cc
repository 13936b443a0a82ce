#include "services/core/io/path_roots.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

std::optional<std::string> RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  if (::realpath(path.c_str(), buffer) == nullptr) return std::nullopt;
  return std::string(buffer);
}

std::string Quoted(absl::string_view path) {
  return absl::StrCat("\"", absl::CHexEscape(path), "\"");
}

absl::Status Denied(absl::string_view path, absl::string_view field) {
  return absl::PermissionDeniedError(
      absl::StrCat(field, " ", Quoted(path), " is not below a folder this service may use"));
}

absl::Status CheckForm(absl::string_view path, absl::string_view field, bool must_be_absolute) {
  if (path.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (path.size() > PathRoots::kMaxPathBytes) {
    return absl::InvalidArgumentError(absl::StrCat(field, " has ", path.size(), " bytes, at most ",
                                                   PathRoots::kMaxPathBytes, " are allowed"));
  }
  if (absl::StrContains(path, '\0')) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " ", Quoted(path), " holds a NUL character"));
  }
  if (must_be_absolute && path[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " ", Quoted(path), " is not absolute; it must begin with \"/\""));
  }
  return absl::OkStatus();
}

// Takes the last name off `path`, which is absolute and not "/".
std::string PopName(std::string& path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  std::string name = path.substr(slash + 1);
  path.resize(slash == 0 ? 1 : slash);
  return name;
}

// The existing part resolved, then the names that do not exist yet.
absl::StatusOr<std::string> ResolveExistingPart(std::string path, absl::string_view given,
                                                absl::string_view field) {
  std::string missing;
  while (true) {
    if (std::optional<std::string> real = RealPath(path)) {
      if (missing.empty()) return *real;
      return absl::StrCat(*real == "/" ? "" : *real, missing);
    }
    if (errno != ENOENT && errno != ENOTDIR) return Denied(given, field);
    struct stat info;
    // A link that leads nowhere would let a later create write wherever it points.
    if (::lstat(path.c_str(), &info) == 0) return Denied(given, field);
    const std::string name = PopName(path);
    if (name == "..") {
      return absl::InvalidArgumentError(absl::StrCat(
          field, " ", Quoted(given), " has \"..\" below a folder that does not exist"));
    }
    if (!name.empty() && name != ".") missing = absl::StrCat("/", name, missing);
  }
}

}  // namespace

bool IsSameOrBelow(absl::string_view inner, absl::string_view outer) {
  if (!absl::StartsWith(inner, outer)) return false;
  return inner.size() == outer.size() || outer == "/" || inner[outer.size()] == '/';
}

absl::StatusOr<PathRoots> PathRoots::Create(const std::vector<std::string>& roots) {
  PathRoots result;
  for (const std::string& root : roots) {
    std::optional<std::string> real = RealPath(root);
    if (!real) return absl::ErrnoToStatus(errno, absl::StrCat("root ", Quoted(root)));
    struct stat info;
    if (::stat(real->c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat("root ", Quoted(root), " is not a folder"));
    }
    result.roots_.push_back(*std::move(real));
  }
  return result;
}

absl::StatusOr<std::string> PathRoots::Resolve(absl::string_view path,
                                               absl::string_view field) const {
  ODMOE_RETURN_IF_ERROR(CheckForm(path, field, restricted()));
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(std::string(path), error).string();
  if (error) return absl::InvalidArgumentError(absl::StrCat(field, ": ", error.message()));
  ODMOE_ASSIGN_OR_RETURN(std::string resolved, ResolveExistingPart(absolute, path, field));
  if (!Allows(resolved)) return Denied(path, field);
  return resolved;
}

bool PathRoots::Allows(absl::string_view resolved) const {
  return roots_.empty() || absl::c_any_of(roots_, [&](const std::string& root) {
           return IsSameOrBelow(resolved, root);
         });
}

}  // namespace odmoe
