#include "services/conversion/jobs/owner_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

struct flock ByteLock(int64_t owner) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = owner;
  lock.l_len = 1;
  return lock;
}

}  // namespace

// Open-file-description locks: unlike process locks they also tell apart two queues of one process.
absl::StatusOr<std::unique_ptr<OwnerLock>> OwnerLock::Acquire(const std::string& path,
                                                              int64_t owner) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  std::unique_ptr<OwnerLock> result(new OwnerLock(path, fd, owner));
  struct flock lock = ByteLock(owner);
  if (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      return absl::AlreadyExistsError(absl::StrCat(path, ": owner ", owner, " is taken"));
    }
    return absl::ErrnoToStatus(errno, absl::StrCat("lock byte ", owner, " of ", path));
  }
  return result;
}

OwnerLock::~OwnerLock() { ::close(fd_); }

absl::StatusOr<bool> OwnerLock::IsAlive(int64_t owner) const {
  if (owner == owner_) return true;
  struct flock lock = ByteLock(owner);
  if (::fcntl(fd_, F_OFD_GETLK, &lock) != 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("query the lock on byte ", owner, " of ", path_));
  }
  return lock.l_type != F_UNLCK;
}

}  // namespace odmoe
