#include "services/core/io/posix_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/io/posix_error.h"

namespace odmoe {
namespace {

// Linux transfers at most this much in one call (0x7ffff000 bytes).
constexpr size_t kMaxTransfer = size_t{1} << 30;

constexpr uint64_t kMaxFileBytes = std::numeric_limits<off_t>::max();

class PosixRandomAccessFile : public RandomAccessFile {
 public:
  PosixRandomAccessFile(std::string path, OwnedFd fd, const struct stat& info)
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
  const OwnedFd fd_;
  const uint64_t size_;
  const int64_t modified_ns_;
  const uint64_t disk_bytes_;
};

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, OwnedFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

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
      if (errno != EINTR)
        return PosixError(errno, absl::StrCat("set the length ", bytes, " of"), path_);
    }
    return absl::OkStatus();
  }

  absl::Status Allocate(uint64_t bytes) override {
    ODMOE_RETURN_IF_ERROR(Resize(bytes));
    while (bytes > 0 && ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
      if (errno == EOPNOTSUPP || errno == ENOSYS) break;  // written blocks are taken one by one
      if (errno != EINTR)
        return PosixError(errno, absl::StrCat("take ", bytes, " bytes for"), path_);
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
  OwnedFd fd_;
  uint64_t offset_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RandomAccessFile>> ReadableFile(OwnedFd fd, std::string path) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return PosixError(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  return std::make_unique<PosixRandomAccessFile>(std::move(path), std::move(fd), info);
}

std::unique_ptr<WritableFile> WritableFileOf(OwnedFd fd, std::string path) {
  return std::make_unique<PosixWritableFile>(std::move(path), std::move(fd));
}

}  // namespace odmoe
