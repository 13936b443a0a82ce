#include "services/conversion/transfer/served_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/open_beneath.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 100'000;

}  // namespace

absl::StatusOr<ServedFile> OpenServedFile(const PathRoots& roots, const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots.Resolve(path, "path"));
  ServedFile served;
  // Without waiting for a writer, should it be a pipe.
  auto file = OpenResolved(resolved, O_RDONLY | O_NONBLOCK);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message()));
  }
  served.file = *std::move(file);
  struct stat info;
  if (::fstat(served.file.get(), &info) != 0) return PosixError(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  served.size_bytes = uint64_t(info.st_size);
  return served;
}

absl::StatusOr<std::vector<RemoteFile>> ListServedFiles(const PathRoots& roots,
                                                        const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots.Resolve(path, "path"));
  std::vector<RemoteFile> files;
  std::error_code error;
  if (fs::is_regular_file(resolved, error)) {
    files.push_back({"", fs::file_size(resolved, error)});
    if (error) return PosixError(error.value(), "stat", path);
    return files;
  }
  for (auto entry = fs::recursive_directory_iterator(resolved, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code entry_error;
    if (entry->is_symlink(entry_error) || !entry->is_regular_file(entry_error)) continue;
    const uint64_t size = entry->file_size(entry_error);
    if (entry_error) continue;  // gone meanwhile
    files.push_back({entry->path().native().substr(resolved.size() + 1), size});
    if (files.size() > kMaxFiles) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, " has more than ", kMaxFiles, " files"));
    }
  }
  if (error) return PosixError(error.value(), "list", path);
  std::sort(files.begin(), files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.name < b.name; });
  return files;
}

}  // namespace odmoe
