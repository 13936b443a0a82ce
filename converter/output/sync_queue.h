// Brings written bytes to the disk behind the back of those who write, many files at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/journal.h"
#include "services/core/io/file.h"

namespace odmoe {

// A thread that syncs in rounds: all files written to since the last round, then a record in the
// journal that says so. Where they are many, it syncs the file system as a whole, which commits its
// own journal and empties the disk's cache once for all of them, not once a file. Thread-safe.
class SyncQueue {
 public:
  // All files lie on the file system of `folder`. `fs` and `journal` outlive the queue. Syncs
  // nothing that was recorded before.
  SyncQueue(FileSystem& fs, std::string folder, Journal& journal);
  // Leaves what is not synced yet; see Finish.
  ~SyncQueue();
  SyncQueue(const SyncQueue&) = delete;
  SyncQueue& operator=(const SyncQueue&) = delete;

  // `bytes` of `item`, with that hash, are in `file`: records it, and sees to the sync. Waits while
  // too much is under way. Fails as an earlier sync did.
  absl::Status Written(const std::shared_ptr<WritableFile>& file, uint64_t bytes, uint32_t item,
                       uint64_t hash);
  // Waits until all that was written is on the disk and recorded. To be called once, last.
  absl::Status Finish();

 private:
  void Run();
  bool Due() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Files to be synced together: each by itself, or where they are too many to be kept open, with
  // the file system.
  struct Round {
    std::vector<std::shared_ptr<WritableFile>> files;  // in the order of their first bytes
    bool many = false;
    uint64_t bytes = 0;
  };
  absl::Status Sync(const Round& round);
  absl::Status SyncAndRecord(const Round& round, uint64_t end_record);

  FileSystem& fs_;
  const std::string folder_;
  Journal& journal_;
  absl::Mutex mutex_;
  Round dirty_ ABSL_GUARDED_BY(mutex_);  // the next
  uint64_t syncing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t synced_records_;  // the thread's own
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace odmoe
