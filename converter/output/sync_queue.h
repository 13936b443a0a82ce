// Brings written bytes to the disk behind the back of those who write, many files at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/journal.h"
#include "services/core/io/file.h"

namespace odmoe {

// A thread that syncs in rounds: all files written to since the last round, then a record in the
// journal that says so. A round's first sync makes the file system commit its own journal for all of
// them, and the others find little left to do; a file at a time, each would pay for a commit.
// Thread-safe.
class SyncQueue {
 public:
  // `journal` outlives the queue. Syncs nothing that was recorded before.
  explicit SyncQueue(Journal& journal);
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
  absl::Status SyncRound(const std::vector<std::shared_ptr<WritableFile>>& files,
                         uint64_t end_record);

  Journal& journal_;
  absl::Mutex mutex_;
  // Written to since the last round began, in the order of that.
  std::vector<std::shared_ptr<WritableFile>> dirty_ ABSL_GUARDED_BY(mutex_);
  uint64_t dirty_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t syncing_files_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t syncing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t synced_records_;  // the thread's own
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace odmoe
