// A file system that cannot be led out of the roots.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/core/io/file.h"
#include "services/core/io/owned_fd.h"
#include "services/core/io/path_roots.h"

namespace odmoe {

// The process's files below the roots. A symbolic link is followed where it leads to a place below
// them; each path is resolved when it is used, and what is found there is then opened part by part,
// following no link, so that one that is put there meanwhile leads to PERMISSION_DENIED and not out
// of the roots. Names are given and removed in the folder so opened, links at them not followed.
// Thread-safe. The roots outlive it.
class RootedFileSystem : public FileSystem {
 public:
  explicit RootedFileSystem(const PathRoots& roots) : roots_(roots) {}

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
  absl::StatusOr<OwnedFd> Open(const std::string& path, int flags) const;
  // The folder that `path` lies in, and its name there.
  absl::StatusOr<std::pair<OwnedFd, std::string>> OpenParent(const std::string& path) const;

  const PathRoots& roots_;
};

}  // namespace odmoe
