#include "services/conversion/jobs/rooted_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/open_beneath.h"
#include "services/core/io/posix_error.h"
#include "services/core/io/posix_file.h"

namespace odmoe {
namespace {

constexpr char kField[] = "file";  // as PathRoots' errors call a path

// The part of a path that failed says little without the path.
absl::Status OfPath(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<OwnedFd> RootedFileSystem::Open(const std::string& path, int flags) const {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots_.Resolve(path, kField));
  absl::StatusOr<OwnedFd> fd = OpenResolved(resolved, flags, 0666);
  if (!fd.ok()) return OfPath(fd.status(), path);
  return fd;
}

absl::StatusOr<std::pair<OwnedFd, std::string>> RootedFileSystem::OpenParent(
    const std::string& path) const {
  const std::filesystem::path parts(path);
  const std::string name = parts.filename();
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(absl::StrCat(path, " does not end in a name"));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::string folder,
                         roots_.Resolve(parts.parent_path().string(), kField));
  absl::StatusOr<OwnedFd> fd = OpenResolvedFolder(folder);
  if (!fd.ok()) return OfPath(fd.status(), path);
  return std::pair(*std::move(fd), name);
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> RootedFileSystem::OpenForRead(
    const std::string& path) {
  // Without O_NONBLOCK a FIFO in a hostile directory would hang the open.
  ODMOE_ASSIGN_OR_RETURN(OwnedFd fd, Open(path, O_RDONLY | O_NONBLOCK));
  return ReadableFile(std::move(fd), path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> RootedFileSystem::OpenForWrite(
    const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(OwnedFd fd, Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  return WritableFileOf(std::move(fd), path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> RootedFileSystem::OpenForUpdate(
    const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(OwnedFd fd, Open(path, O_WRONLY | O_CREAT));
  return WritableFileOf(std::move(fd), path);
}

absl::Status RootedFileSystem::Rename(const std::string& from, const std::string& to) {
  ODMOE_ASSIGN_OR_RETURN(const auto source, OpenParent(from));
  ODMOE_ASSIGN_OR_RETURN(const auto target, OpenParent(to));
  if (::renameat(source.first.get(), source.second.c_str(), target.first.get(),
                 target.second.c_str()) != 0) {
    return PosixError(errno, absl::StrCat("rename ", from, " to"), to);
  }
  return absl::OkStatus();
}

absl::Status RootedFileSystem::Remove(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const auto parent, OpenParent(path));
  const int folder = parent.first.get();
  if (::unlinkat(folder, parent.second.c_str(), 0) == 0) return absl::OkStatus();
  if (errno == EISDIR && ::unlinkat(folder, parent.second.c_str(), AT_REMOVEDIR) == 0) {
    return absl::OkStatus();
  }
  return PosixError(errno, "remove", path);
}

absl::Status RootedFileSystem::SyncDirectory(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  return ::fsync(fd.get()) == 0 ? absl::OkStatus() : PosixError(errno, "sync folder", path);
}

absl::Status RootedFileSystem::SyncFileSystem(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const OwnedFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  return ::syncfs(fd.get()) == 0 ? absl::OkStatus()
                                 : PosixError(errno, "sync the file system of", path);
}

absl::Status RootedFileSystem::CreateDirectories(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots_.Resolve(path, kField));
  const absl::Status made = OpenResolvedFolder(resolved, /*create=*/true).status();
  return made.ok() ? made : OfPath(made, path);
}

absl::StatusOr<std::vector<std::string>> RootedFileSystem::ListDirectory(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(OwnedFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  DIR* const folder = ::fdopendir(fd.get());
  if (folder == nullptr) return PosixError(errno, "list folder", path);
  fd.Release();
  const absl::Cleanup close = [folder] { ::closedir(folder); };
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return PosixError(errno, "list folder", path);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<uint64_t> RootedFileSystem::FreeBytes(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const std::string resolved, roots_.Resolve(path, kField));
  return PosixFileSystem().FreeBytes(resolved);
}

}  // namespace odmoe
