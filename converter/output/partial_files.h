// The partial files of an output, opened as items for them come.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "converter/output/journal.h"
#include "converter/output/output_plan.h"
#include "services/core/io/file.h"

namespace odmoe {

// The name of a file while it is written.
std::string PartialPath(absl::string_view path);
// The folder it lies in.
std::string FolderOf(const std::string& path);

// Whether a file of this size is there, whatever is in it.
bool IsFileOfSize(FileSystem& fs, const std::string& path, uint64_t bytes);

// Opens each of a plan's partial files when its first item comes, and lets go of it after its last.
// Thread-safe. The plan outlives it.
class PartialFiles {
 public:
  // `items`: what is known of each item; files none of whose items are is made anew.
  PartialFiles(const OutputPlan& plan, FileSystem& fs, const std::vector<ItemRecord>& items);

  // The file, with its length and header, for an item of it to be written.
  absl::StatusOr<std::shared_ptr<WritableFile>> Use(uint32_t file);
  // An item of it is written, of those that were missing or not synced.
  void ItemDone(uint32_t file);
  // Makes and syncs the files that have no items, which nobody else would.
  absl::Status WriteEmptyOnes();

 private:
  struct Entry {
    absl::Mutex mutex;
    bool goes_on ABSL_GUARDED_BY(mutex) = false;  // an earlier run's, to be kept
    size_t items_left ABSL_GUARDED_BY(mutex) = 0;
    std::shared_ptr<WritableFile> open ABSL_GUARDED_BY(mutex);
  };
  absl::StatusOr<std::shared_ptr<WritableFile>> Open(const OutputFile& file, bool goes_on);

  const OutputPlan& plan_;
  FileSystem& fs_;
  std::vector<Entry> entries_;
};

}  // namespace odmoe
