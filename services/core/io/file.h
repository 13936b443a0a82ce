// Files: all of odmoe's reading and writing of model files goes through these interfaces, so that
// tests can make any call fail. Every error names the file, the offset, and what was expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// A file open for reading at any offset. Thread-safe.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;
  // Fills `out` from `offset` on. OUT_OF_RANGE: the file ends before that. DATA_LOSS: the device
  // failed.
  virtual absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const = 0;
  virtual uint64_t size() const = 0;
  // When it was last written, in nanoseconds since 1970; 0 where that is not known.
  virtual int64_t modified_ns() const { return 0; }
  // Bytes it takes on the disk: less than its size where it has holes.
  virtual uint64_t disk_bytes() const { return size(); }
  virtual const std::string& path() const = 0;
};

// A file being written, front to back or in ranges at any offset. Not thread-safe, but for Sync,
// and WriteAt on ranges that do not overlap.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  // RESOURCE_EXHAUSTED: disk or quota full. DATA_LOSS: the device failed.
  virtual absl::Status Append(absl::Span<const std::byte> data) = 0;
  virtual absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) = 0;
  // Makes the file `bytes` long; what is new reads as zeros. Resize only sets the length, Allocate
  // also takes the disk space, so that a full disk shows at once. RESOURCE_EXHAUSTED: no room.
  virtual absl::Status Resize(uint64_t bytes) = 0;
  virtual absl::Status Allocate(uint64_t bytes) { return Resize(bytes); }
  // Keeps other processes that call this from writing the file until it is closed or the process
  // ends. FAILED_PRECONDITION: another one has it.
  virtual absl::Status Lock() { return absl::OkStatus(); }
  // Asks for the bytes so far to be on their way to the disk, so that a later Sync waits less.
  virtual void StartSync() {}
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;
  // Bytes appended so far.
  virtual uint64_t offset() const = 0;
  virtual const std::string& path() const = 0;

  absl::Status Append(absl::string_view text) {
    return Append(
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()));
  }
};

// The operating system's files, or a test's. Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not a regular file).
  virtual absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(
      const std::string& path) = 0;
  // Creates or empties.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path) = 0;
  // Keeps what is there; creates an empty file where there is none. Appends start at offset 0.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForUpdate(const std::string& path) = 0;
  // Atomic, and durable once the folder is synced.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // A file, or an empty folder.
  virtual absl::Status Remove(const std::string& path) = 0;
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // Makes everything written so far to the file system that holds the folder `path` durable,
  // whoever wrote it: files, names and folders. For many files, far quicker than a sync of each.
  virtual absl::Status SyncFileSystem(const std::string& path) = 0;
  // Parents too; an existing folder is no error.
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  // Names of the files and folders in a folder, sorted. NOT_FOUND: no such folder, or not a folder.
  virtual absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) = 0;
  // Bytes a writer could still take on the file system holding `path` or its nearest existing
  // parent.
  virtual absl::StatusOr<uint64_t> FreeBytes(const std::string& path) = 0;
};

// The process's POSIX file system.
FileSystem& PosixFileSystem();

// A whole small file. INVALID_ARGUMENT: larger than `limit_bytes`.
absl::StatusOr<std::string> ReadWholeFile(FileSystem& fs, const std::string& path,
                                          uint64_t limit_bytes);

// An output that nobody sees before it is complete: written as `<path>.partial`, and on Commit
// synced and renamed. Destroyed without Commit, it removes the partial file. Not thread-safe.
class AtomicFile {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(FileSystem& fs,
                                                            const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  WritableFile& file() { return *file_; }
  // Sync, close, rename, sync the folder.
  absl::Status Commit();
  // The same without syncing the folder, for one who writes many files to it and syncs it once.
  absl::Status CommitUnsynced();

 private:
  AtomicFile(FileSystem& fs, std::string path, std::unique_ptr<WritableFile> file);
  FileSystem& fs_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  bool committed_ = false;
};

}  // namespace odmoe
