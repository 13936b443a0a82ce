#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
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
#include "services/core/io/posix_error.h"

namespace odmoe {

absl::Status PosixError(int error, absl::string_view action, const std::string& path) {
  const std::string message = absl::StrCat("cannot ", action, " ", path, ": ", std::strerror(error));
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

// Linux transfers at most this much in one call (0x7ffff000 bytes).
constexpr size_t kMaxTransfer = size_t{1} << 30;

constexpr uint64_t kMaxFileBytes = std::numeric_limits<off_t>::max();

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class PosixRandomAccessFile : public RandomAccessFile {
 public:
  PosixRandomAccessFile(std::string path, Descriptor fd, const struct stat& info)
      : path_(std::move(path)),
        fd_(std::move(fd)),
        size_(static_cast<uint64_t>(info.st_size)),
        modified_ns_(int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec),
        disk_bytes_(static_cast<uint64_t>(info.st_blocks) * 512) {}  // its unit, on any file system

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > size_ || out.size() > size_ - offset) {
      return absl::OutOfRangeError(absl::StrCat(path_, ": cannot read ", out.size(),
                                                " bytes at offset ", offset, ": the file has ",
                                                size_, " bytes"));
    }
    size_t done = 0;
    while (done < out.size()) {
      const size_t want = std::min(out.size() - done, kMaxTransfer);
      const ssize_t got =
          ::pread(fd_.get(), out.data() + done, want, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return PosixError(errno, absl::StrCat("read at offset ", offset + done, " of"), path_);
      }
      if (got == 0) {
        return absl::OutOfRangeError(absl::StrCat(path_, ": ends at offset ", offset + done,
                                                  ", was ", size_, " bytes when opened"));
      }
      done += static_cast<size_t>(got);
    }
    return absl::OkStatus();
  }

  uint64_t size() const override { return size_; }
  int64_t modified_ns() const override { return modified_ns_; }
  uint64_t disk_bytes() const override { return disk_bytes_; }
  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  const Descriptor fd_;
  const uint64_t size_;
  const int64_t modified_ns_;
  const uint64_t disk_bytes_;
};

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, Descriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  using WritableFile::Append;

  absl::Status Append(absl::Span<const std::byte> data) override {
    ODMOE_RETURN_IF_ERROR(WriteAt(offset_, data));
    offset_ += data.size();
    return absl::OkStatus();
  }

  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) override {
    size_t done = 0;
    while (done < data.size()) {
      const size_t want = std::min(data.size() - done, kMaxTransfer);
      const ssize_t put =
          ::pwrite(fd_.get(), data.data() + done, want, static_cast<off_t>(offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        return PosixError(errno, absl::StrCat("write at offset ", offset + done, " of"), path_);
      }
      done += static_cast<size_t>(put);
    }
    return absl::OkStatus();
  }

  absl::Status Resize(uint64_t bytes) override {
    if (bytes > kMaxFileBytes) return TooLarge(bytes);
    while (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) {
      if (errno != EINTR) return PosixError(errno, absl::StrCat("set the length ", bytes, " of"), path_);
    }
    return absl::OkStatus();
  }

  absl::Status Allocate(uint64_t bytes) override {
    ODMOE_RETURN_IF_ERROR(Resize(bytes));
    while (bytes > 0 && ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
      if (errno == EOPNOTSUPP || errno == ENOSYS) break;  // written blocks are taken one by one
      if (errno != EINTR) return PosixError(errno, absl::StrCat("take ", bytes, " bytes for"), path_);
    }
    return absl::OkStatus();
  }

  absl::Status Lock() override {
    while (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        return absl::FailedPreconditionError(absl::StrCat(path_, " is in use by another process"));
      }
      if (errno != EINTR) return PosixError(errno, "lock", path_);
    }
    return absl::OkStatus();
  }

  void StartSync() override {
#ifdef SYNC_FILE_RANGE_WRITE
    // A hint: what it does not do, Sync does.
    static_cast<void>(::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE));
#endif
  }

  absl::Status Sync() override {
    if (::fsync(fd_.get()) != 0) return PosixError(errno, "sync", path_);
    return absl::OkStatus();
  }

  absl::Status Close() override {
    const int fd = fd_.Release();
    if (fd >= 0 && ::close(fd) != 0) return PosixError(errno, "close", path_);
    return absl::OkStatus();
  }

  uint64_t offset() const override { return offset_; }
  const std::string& path() const override { return path_; }

 private:
  absl::Status TooLarge(uint64_t bytes) const {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, ": ", bytes, " bytes are more than a file can have"));
  }

  const std::string path_;
  Descriptor fd_;
  uint64_t offset_ = 0;
};

class Posix : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    // Without O_NONBLOCK a FIFO in a hostile directory would hang the open.
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd.get() < 0) return PosixError(errno, "open", path);
    struct stat info;
    if (::fstat(fd.get(), &info) != 0) return PosixError(errno, "stat", path);
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
    }
    return std::make_unique<PosixRandomAccessFile>(path, std::move(fd), info);
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
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return PosixError(errno, "open folder", path);
    if (::fsync(fd.get()) != 0) return PosixError(errno, "sync folder", path);
    return absl::OkStatus();
  }

  absl::Status SyncFileSystem(const std::string& path) override {
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
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
    Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666));
    if (fd.get() < 0) return PosixError(errno, "create", path);
    return std::make_unique<PosixWritableFile>(path, std::move(fd));
  }
};

}  // namespace

FileSystem& PosixFileSystem() {
  static Posix& file_system = *new Posix;
  return file_system;
}

}  // namespace odmoe
