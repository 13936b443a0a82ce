// One directory that experts are read from.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/source_stats.h"
#include "services/expert_storage/sources/expert_places.h"
#include "services/expert_storage/sources/file_cache.h"

namespace odmoe {

// Opens a model's files in a directory, and keeps count of what is read there. Thread-safe.
class ExpertDisk {
 public:
  using Files = absl::InlinedVector<FileCache::File, 1>;  // one an extent

  struct Options {
    bool direct = false;    // past the page cache
    bool copies = false;    // not what the model was opened by: files' times are their own
    size_t open_files = 1;  // kept open
  };
  // `places` outlives it.
  ExpertDisk(const ExpertPlaces& places, std::string directory, const Options& options);

  // Whether this directory's file system reads past the page cache, found by a read of a file of
  // the model; true where none of those tried is there. FileCache's other errors.
  static absl::StatusOr<bool> ReadsDirectly(const ExpertPlaces& places,
                                            const std::string& directory);

  // Without waiting for a disk; empty where that cannot be.
  Files OpenAtOnce(const FileExtents& extents);
  // May wait. NOT_FOUND: not here. DATA_LOSS: not what it was when the model was opened, or as
  // FileCache's. Errors of FileCache::Open else.
  absl::StatusOr<Files> Open(const FileExtents& extents);
  // The next read opens them again.
  void Forget(const FileExtents& extents);

  // A read begins, and is over.
  void Begin(uint64_t bytes);
  void End(uint64_t bytes, bool failed);
  uint64_t bytes_under_way() const { return bytes_under_way_.load(std::memory_order_relaxed); }

  // Whether the expert may be here; where it was once not found it is not looked for again.
  bool MayHave(int64_t expert) const { return !absent_[expert].load(std::memory_order_relaxed); }
  void NoteAbsent(int64_t expert) { absent_[expert].store(true, std::memory_order_relaxed); }

  const std::string& directory() const { return directory_; }
  bool direct() const { return options_.direct; }
  size_t open_files() const { return files_.open_files(); }
  DiskStats Stats() const;
  // For what may wait for this disk and not for others.
  ThreadPool& openers() { return openers_; }

 private:
  absl::Status CheckStamp(const OpenedFile& file, uint32_t number);
  std::string PathOf(uint32_t file) const;

  const ExpertPlaces& places_;
  const std::string directory_;
  const Options options_;
  FileCache files_;
  std::vector<std::atomic<bool>> absent_;
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> bytes_read_{0};
  std::atomic<uint64_t> failures_{0};
  std::atomic<uint64_t> bytes_under_way_{0};
  absl::Mutex mutex_;
  // When files that are copies were written to, as of their first opening.
  absl::flat_hash_map<uint32_t, int64_t> modified_ns_ ABSL_GUARDED_BY(mutex_);
  ThreadPool openers_;  // last: its tasks use the rest
};

}  // namespace odmoe
