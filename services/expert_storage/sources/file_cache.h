// Files kept open between reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/io/owned_fd.h"

namespace odmoe {

// A regular file open for reading; closed when the last who holds it lets go. Immutable.
struct OpenedFile {
  OpenedFile(OwnedFd descriptor, std::string its_path, uint64_t unique, bool past_page_cache)
      : fd(std::move(descriptor)), path(std::move(its_path)), id(unique), direct(past_page_cache) {}

  const OwnedFd fd;
  const std::string path;  // for messages
  const uint64_t id;       // never used twice in a process
  const bool direct;       // O_DIRECT: offsets, sizes and addresses are multiples of 4096
};

// The files read lately, at most `capacity` of them: a model has more than a process has
// descriptors. A file that is replaced while it is open goes on being read as it was, which the
// catalog's hash still names; Forget makes the next read open what is there now. Thread-safe, and
// no lock is held while a file is being opened.
class FileCache {
 public:
  using File = std::shared_ptr<const OpenedFile>;

  // `flags` for open(2), besides O_RDONLY | O_CLOEXEC.
  FileCache(size_t capacity, int flags);
  // Capacity of a process with this limit of descriptors, for one that has other uses for them too.
  static size_t DefaultCapacity();

  // The file if it is open, or can be opened without waiting for a disk; null otherwise, whatever
  // the reason. `key` names the file, `path` is where it is.
  File OpenAtOnce(uint64_t key, const std::string& path);
  // May wait for the disk. NOT_FOUND; DATA_LOSS: not a regular file, or a device that fails;
  // UNIMPLEMENTED: the file system refuses the flags; RESOURCE_EXHAUSTED: no descriptor or memory;
  // PERMISSION_DENIED.
  absl::StatusOr<File> Open(uint64_t key, const std::string& path);
  void Forget(uint64_t key);

  size_t open_files() const;

 private:
  struct Entry {
    uint64_t key;
    File file;
  };
  using Entries = std::list<Entry>;

  File Find(uint64_t key);
  File Keep(uint64_t key, const std::string& path, OwnedFd fd);
  // Closes what nobody reads from. False: there was nothing.
  bool CloseIdle();

  const size_t capacity_;
  const int flags_;
  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // used last first
  absl::flat_hash_map<uint64_t, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
