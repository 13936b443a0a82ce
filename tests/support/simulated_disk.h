// A file system in memory whose process can be killed, whose power can fail, and whose calls can
// fail.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/core/io/file.h"

namespace odmoe {

// Thread-safe. Counts the calls that change the disk.
class SimulatedDisk : public FileSystem {
 public:
  // What the call number `at`, from 0 after this, does: fails with `failure`, as do all after it
  // where `for_good`. A process that is killed at a call is one whose calls all fail from there on.
  void FailAt(int64_t at, absl::Status failure, bool for_good);
  // Calls since then.
  int64_t calls() const;
  // The next process: locks are free, nothing fails.
  void Restart();
  // The power fails: of what was not synced, some is lost, by `seed`; then Restart.
  void LosePower(uint64_t seed);

  void Write(const std::string& path, std::string bytes);  // durable
  // Called with each range that a file takes, one call at a time; may not use the disk.
  using WriteWatcher =
      std::function<void(const std::string& path, uint64_t offset, uint64_t bytes)>;
  void WatchWrites(WriteWatcher watcher);
  // Files by path.
  std::map<std::string, std::string> Files() const;

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForUpdate(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status SyncFileSystem(const std::string& path) override;
  absl::Status CreateDirectories(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override;
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override { return 1 << 20; }

 private:
  friend class SimulatedFile;
  // A change of a file that is not durable: bytes at an offset, or, without any, a new length.
  struct Change {
    uint64_t offset = 0;
    std::string bytes;
  };
  struct Inode {
    std::string now;
    std::string durable;
    std::vector<Change> pending;
    bool locked = false;
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;
  // A name that came or, with a null inode, went.
  using NameChange = std::pair<std::string, std::shared_ptr<Inode>>;

  absl::Status Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetName(const std::string& path, std::shared_ptr<Inode> inode)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Apply(const Change& change, std::string& bytes);
  static void Apply(const NameChange& change, Names& names);

  mutable absl::Mutex mutex_;
  Names names_ ABSL_GUARDED_BY(mutex_);
  Names durable_names_ ABSL_GUARDED_BY(mutex_);
  std::vector<NameChange> pending_names_ ABSL_GUARDED_BY(mutex_);
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = -1;
  bool for_good_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  WriteWatcher watcher_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
