// Files that clients of other hosts send, kept until jobs have used them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/io/file_hash.h"
#include "services/core/io/owned_fd.h"
#include "services/core/jobs/file_transfer.h"

namespace odmoe {

struct SpoolOptions {
  std::string directory;           // created where it is not there; its parent is
  uint64_t quota_bytes = 0;        // of all uploads with what jobs put there; 0: the disk's size
  absl::Duration keep = absl::Hours(24 * 7);  // since an upload's last call
  // Whether a job that has not ended uses something below this folder; empty: none ever does.
  std::function<absl::StatusOr<bool>(const std::string& directory)> in_use = nullptr;
};

// One upload is a folder DIRECTORY/ID of its client's files. A file is NAME.partial until it is
// whole, hashed and synced. Names lead nowhere else, whatever is in them and whatever links are put
// in their way. Thread-safe.
class Spool {
 public:
  static constexpr size_t kMaxFiles = 1'000'000;  // of all uploads

  // NOT_FOUND, PERMISSION_DENIED: the directory.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(SpoolOptions options);

  // A file being written: what has been appended is kept when it dies. Used by one thread at a
  // time.
  class Writer {
   public:
    ~Writer();
    // DATA_LOSS: `hash` is not that of `data`, and nothing is appended. OUT_OF_RANGE: past the
    // size. RESOURCE_EXHAUSTED: disk full.
    absl::Status Append(absl::string_view data, uint64_t hash);
    // Gives the file its name. DATA_LOSS: `hash` is not that of the whole, and nothing is kept.
    // FAILED_PRECONDITION: bytes are missing.
    absl::StatusOr<UploadedFile> Finish(uint64_t hash);

   private:
    friend class Spool;
    Writer(Spool& spool, std::string id, std::string name, uint64_t size)
        : spool_(spool), id_(std::move(id)), name_(std::move(name)), size_(size) {}
    absl::Status Start(uint64_t offset, uint64_t prefix_hash);

    Spool& spool_;
    const std::string id_, name_;
    const uint64_t size_;
    OwnedFd upload_;          // the upload's folder
    OwnedFd file_;
    bool complete_ = false;   // it has its name already
    bool counted_ = false;    // among the spool's writers
    uint64_t written_ = 0;
    FileHash hash_;
  };

  // Starts or goes on with a file of `size` bytes at `offset`; `prefix_hash` is that of the bytes
  // before, which are to be kept. Makes the upload where there is none.
  // INVALID_ARGUMENT: id or name. OUT_OF_RANGE: `offset` is past what is kept, or past `size`.
  // DATA_LOSS: what is kept has another hash, and is dropped. ALREADY_EXISTS: the file is complete
  // with another size. ABORTED: somebody else writes it. RESOURCE_EXHAUSTED: quota, disk, files.
  absl::StatusOr<std::unique_ptr<Writer>> Write(const std::string& id, const std::string& name,
                                                uint64_t size, uint64_t offset,
                                                uint64_t prefix_hash);

  // With all its files, or with the one that is named, if there is something of it. NOT_FOUND: no
  // such upload. INVALID_ARGUMENT: id or name.
  absl::StatusOr<Upload> Get(const std::string& id, const std::string& name = "");
  // Removes an upload with all below its folder. NOT_FOUND. FAILED_PRECONDITION: in use.
  absl::Status Delete(const std::string& id);
  // Removes uploads that nobody has touched for long and no job uses.
  absl::Status Expire(absl::Time now);

 private:
  explicit Spool(SpoolOptions options) : options_(std::move(options)) {}
  std::string PathOf(const std::string& id) const { return options_.directory + "/" + id; }
  absl::StatusOr<OwnedFd> OpenUpload(const std::string& id) const;
  absl::Status CheckUnused(const std::string& id);
  absl::Status CheckQuota(uint64_t more_bytes);
  // What the uploads hold, by a look at the disk that is as fresh as `since`, and what was written
  // after it.
  void Measure(absl::Time since);
  static absl::StatusOr<UploadedFile> Find(const OwnedFd& upload, const std::string& name);

  const SpoolOptions options_;
  OwnedFd directory_;
  absl::Mutex mutex_;
  std::set<std::pair<std::string, std::string>> writing_ ABSL_GUARDED_BY(mutex_);  // id, name
  uint64_t reserved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // that open writers are still to write
  absl::Time measured_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  uint64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t used_files_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace odmoe
