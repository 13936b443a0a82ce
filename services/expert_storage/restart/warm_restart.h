// Keeps a store's working set on disk, and puts it back when the store starts again.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/io/file.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

// One model's. Saves while it lives and once more at its end; so after a kill what is put back is
// at most a period old. Thread-safe.
class WarmRestart {
 public:
  struct Options {
    std::string directory;                      // made if it is not there
    absl::Duration period = absl::Seconds(10);  // between two savings
  };

  // Asks the store to read back what was saved of this model, in the background, and begins to save
  // its working set, atomically, in a file named by the model's digest. What cannot be read back,
  // since it is corrupt or of another model, is left alone: see restore_status(). `store` and `fs`
  // outlive this. Errors of making the directory.
  static absl::StatusOr<std::unique_ptr<WarmRestart>> Start(CachingExpertStore& store,
                                                            FileSystem& fs, Options options);
  ~WarmRestart();

  // Experts that the store was asked to read back.
  size_t restored() const { return restored_; }
  // OK also where nothing was saved.
  const absl::Status& restore_status() const { return restore_status_; }
  // Writes now, unless nothing has changed. Errors of AtomicFile.
  absl::Status Save() ABSL_LOCKS_EXCLUDED(mutex_);
  // Of the last saving.
  absl::Status save_status() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  WarmRestart(CachingExpertStore& store, FileSystem& fs, Options options);
  absl::Status Restore();
  void SaveNowAndThen();

  CachingExpertStore& store_;
  FileSystem& fs_;
  const Options options_;
  const std::string path_;
  size_t restored_ = 0;
  absl::Status restore_status_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string saved_ ABSL_GUARDED_BY(mutex_);  // what the file holds
  absl::Status save_status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace odmoe
