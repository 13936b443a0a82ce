// A file system that fails when told to.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "services/core/io/file.h"

namespace odmoe {

// The real one, but the call number `fail_at` (from 0, counting only calls that change the disk)
// fails with `failure`, as do all such calls after it where `stays_broken`; removing always works.
// Syncs nothing, which the tests that use it do not look at, and which takes long. Thread-safe.
class FaultyFileSystem : public FileSystem {
 public:
  static constexpr int64_t kNever = -1;

  FaultyFileSystem(int64_t fail_at, absl::Status failure, bool stays_broken)
      : fail_at_(fail_at), failure_(std::move(failure)), stays_broken_(stays_broken) {}

  // Calls that changed the disk so far.
  int64_t calls() const { return calls_.load(); }
  // What FreeBytes says.
  void set_free_bytes(uint64_t bytes) { free_bytes_ = bytes; }

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

  // Counts a call, and says whether it fails.
  absl::Status NextCall();

 private:
  const int64_t fail_at_;
  const absl::Status failure_;
  const bool stays_broken_;
  std::atomic<int64_t> calls_ = 0;
  uint64_t free_bytes_ = ~uint64_t{0};
};

}  // namespace odmoe
