// A file system that cannot be led out of the roots.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/core/io/file.h"
#include "services/core/io/path_roots.h"

namespace odmoe {

// Checks each path against the roots before it touches it, so that a symbolic link inside a source
// directory, or one put in place after the job was submitted, leads to PERMISSION_DENIED and not
// out of the roots. Thread-safe where `base` is. Both outlive it.
class RootedFileSystem : public FileSystem {
 public:
  RootedFileSystem(FileSystem& base, const PathRoots& roots) : base_(base), roots_(roots) {}

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForUpdate(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status SyncFileSystem(const std::string& path) override;
  absl::Status CreateDirectories(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override;
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override;

 private:
  absl::Status Check(const std::string& path) const;

  FileSystem& base_;
  const PathRoots& roots_;
};

}  // namespace odmoe
