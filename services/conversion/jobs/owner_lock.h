// Which queues on one database are alive: each holds a kernel lock on one byte of a side file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace odmoe {

// Byte `owner` of the file is locked for as long as that owner lives. The kernel drops the lock
// when the process ends, however it ends, so neither a reused process id nor a wrong clock can
// make a dead owner look alive, and it holds across containers on one host. Thread-safe.
class OwnerLock {
 public:
  // ALREADY_EXISTS: another owner has this number. PERMISSION_DENIED, NOT_FOUND: the file.
  static absl::StatusOr<std::unique_ptr<OwnerLock>> Acquire(const std::string& path, int64_t owner);
  ~OwnerLock();
  OwnerLock(const OwnerLock&) = delete;
  OwnerLock& operator=(const OwnerLock&) = delete;

  int64_t owner() const { return owner_; }
  // True for this owner, too.
  absl::StatusOr<bool> IsAlive(int64_t owner) const;

 private:
  OwnerLock(std::string path, int fd, int64_t owner) : path_(path), fd_(fd), owner_(owner) {}

  const std::string path_;
  const int fd_;
  const int64_t owner_;
};

}  // namespace odmoe
