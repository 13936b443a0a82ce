#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/file.h"
#include "services/core/io/owned_fd.h"
#include "services/core/io/posix_error.h"
#include "services/core/io/posix_file.h"

namespace odmoe {

absl::Status PosixError(int error, absl::string_view action, const std::string& path) {
  const std::string message =
      absl::StrCat("cannot ", action, " ", path, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    case EIO:
      return absl::DataLossError(message);
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
    case ENXIO:
      return absl::InvalidArgumentError(message);
    default:
      return absl::InternalError(message);
  }
}

namespace {

class Posix : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    // Without O_NONBLOCK a FIFO in a hostile directory would hang the open.
    OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd.get() < 0) return PosixError(errno, "open", path);
    return ReadableFile(std::move(fd), path);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path) override {
    return Create(path, O_TRUNC);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForUpdate(const std::string& path) override {
    return Create(path, 0);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return PosixError(errno, absl::StrCat("rename ", from, " to"), to);
    }
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    if (::remove(path.c_str()) != 0) return PosixError(errno, "remove", path);
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return PosixError(errno, "open folder", path);
    if (::fsync(fd.get()) != 0) return PosixError(errno, "sync folder", path);
    return absl::OkStatus();
  }

  absl::Status SyncFileSystem(const std::string& path) override {
    const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return PosixError(errno, "open folder", path);
    if (::syncfs(fd.get()) != 0) return PosixError(errno, "sync the file system of", path);
    return absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return PosixError(error.value(), "create folder", path);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override {
    std::error_code error;
    std::filesystem::directory_iterator entry(path, error);
    std::vector<std::string> names;
    while (!error && entry != std::filesystem::directory_iterator()) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    if (error) return PosixError(error.value(), "list folder", path);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override {
    std::filesystem::path at = path.empty() ? "." : path;
    struct statvfs info;
    while (::statvfs(at.c_str(), &info) != 0) {
      if (errno != ENOENT || !at.has_relative_path()) {
        return PosixError(errno, "ask for free space at", at.string());
      }
      at = at.has_parent_path() ? at.parent_path() : std::filesystem::path(".");
    }
    const uint64_t blocks = info.f_bavail, block_bytes = info.f_frsize;
    if (block_bytes != 0 && blocks > std::numeric_limits<uint64_t>::max() / block_bytes) {
      return std::numeric_limits<uint64_t>::max();
    }
    return blocks * block_bytes;
  }

 private:
  static absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path, int flags) {
    OwnedFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666));
    if (fd.get() < 0) return PosixError(errno, "create", path);
    return WritableFileOf(std::move(fd), path);
  }
};

}  // namespace

FileSystem& PosixFileSystem() {
  static Posix& file_system = *new Posix;
  return file_system;
}

}  // namespace odmoe
