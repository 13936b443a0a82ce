// A checkpoint's folder in memory, for fuzz targets: no file system call a run.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/core/io/file.h"

namespace odmoe {

// Read-only. Holds an empty config.json and an empty weights file from the start.
class MemoryCheckpoint : public FileSystem {
 public:
  static constexpr char kFolder[] = "checkpoint";

  MemoryCheckpoint();
  void Add(const std::string& name, std::string content);

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
  std::map<std::string, std::string> files_;  // by path
};

}  // namespace odmoe
