#include "services/expert_storage/sources/file_cache.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

// A pipe in a file's place must not make the opening wait for its writer.
constexpr int kAlways = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

absl::Status OpeningFailed(const std::string& path, int error) {
  const std::string message = absl::StrCat("cannot open ", path, ": ", std::strerror(error));
  switch (error) {
    case EINVAL:
      return absl::UnimplementedError(message);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    default:
      return absl::DataLossError(message);
  }
}

// A regular file, and from now on one that reads wait for: some file systems would say EAGAIN.
bool IsRegular(int fd, int flags) {
  struct stat info;
  return fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
         fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0;
}

// Fails with EAGAIN where a name must be looked up on the disk, and on kernels before 5.12.
int OpenFromCaches(const std::string& path, int flags) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_CACHED;
  return static_cast<int>(syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof(how)));
}

}  // namespace

FileCache::FileCache(size_t capacity, int flags)
    : capacity_(std::max<size_t>(1, capacity)), flags_(kAlways | flags) {}

size_t FileCache::DefaultCapacity() {
  struct rlimit limit = {};
  constexpr size_t kLeast = 8, kMost = 1024;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kLeast;
  return std::clamp<size_t>(static_cast<size_t>(limit.rlim_cur) / 8, kLeast, kMost);
}

FileCache::File FileCache::OpenAtOnce(uint64_t key, const std::string& path) {
  if (File file = Find(key)) return file;
  OwnedFd fd(OpenFromCaches(path, flags_));
  if (fd.get() < 0 || !IsRegular(fd.get(), flags_)) return nullptr;
  return Keep(key, path, std::move(fd));
}

absl::StatusOr<FileCache::File> FileCache::Open(uint64_t key, const std::string& path) {
  if (File file = Find(key)) return file;
  OwnedFd fd(open(path.c_str(), flags_));
  if (fd.get() < 0 && (errno == EMFILE || errno == ENFILE) && CloseIdle()) {
    fd = OwnedFd(open(path.c_str(), flags_));
  }
  if (fd.get() < 0) {
    const int error = errno;
    struct stat info;
    // A folder refuses O_DIRECT as a file system that has none does.
    if (error == EINVAL && stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
      return absl::DataLossError(absl::StrCat(path, ": not a regular file"));
    }
    return OpeningFailed(path, error);
  }
  if (!IsRegular(fd.get(), flags_)) {
    return absl::DataLossError(absl::StrCat(path, ": not a regular file"));
  }
  return Keep(key, path, std::move(fd));
}

FileCache::File FileCache::Find(uint64_t key) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->file;
}

FileCache::File FileCache::Keep(uint64_t key, const std::string& path, OwnedFd fd) {
  static std::atomic<uint64_t> next_id{1};
  File file = std::make_shared<const OpenedFile>(std::move(fd), path, next_id.fetch_add(1),
                                                 (flags_ & O_DIRECT) != 0);
  File dropped;  // closed once the lock is free
  absl::MutexLock lock(&mutex_);
  // Two reads may have opened it at once.
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) return found->second->file;
  if (entries_.size() == capacity_) {
    by_key_.erase(entries_.back().key);
    dropped = std::move(entries_.back().file);
    entries_.pop_back();
  }
  entries_.push_front({key, file});
  by_key_[key] = entries_.begin();
  return file;
}

void FileCache::Forget(uint64_t key) {
  File dropped;
  absl::MutexLock lock(&mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  dropped = std::move(found->second->file);
  entries_.erase(found->second);
  by_key_.erase(found);
}

bool FileCache::CloseIdle() {
  Entries idle;
  absl::MutexLock lock(&mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    if (entry->file.use_count() == 1) {
      by_key_.erase(entry->key);
      idle.splice(idle.end(), entries_, entry);
    }
    entry = next;
  }
  return !idle.empty();
}

size_t FileCache::open_files() const {
  absl::MutexLock lock(&mutex_);
  return entries_.size();
}

}  // namespace odmoe
