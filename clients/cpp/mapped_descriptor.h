// Descriptors from another process of this user, and their memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/io/owned_fd.h"

namespace odmoe {

// What a store hands out for a token.
struct FetchedDescriptors {
  OwnedFd socket;  // to be kept as long as anything is mapped: its end tells the store
  std::vector<OwnedFd> fds;
};

// Connects to a SOCK_SEQPACKET socket, sends `token`, and receives exactly `count` descriptors,
// within five seconds. UNAVAILABLE: nobody there. PERMISSION_DENIED: another user's socket, or the
// token was refused.
absl::StatusOr<FetchedDescriptors> FetchDescriptors(const std::string& socket_path,
                                                    const std::string& token, size_t count);

// A sealed memfd of another process, mapped. The mapping stays valid when that process ends.
class MappedDescriptor {
 public:
  // FAILED_PRECONDITION: not sealed against shrinking (a mapping that can be cut short faults), or
  // not of `bytes`. RESOURCE_EXHAUSTED: no address space.
  static absl::StatusOr<std::unique_ptr<MappedDescriptor>> Map(const OwnedFd& fd, uint64_t bytes,
                                                               bool writable);
  ~MappedDescriptor();
  MappedDescriptor(const MappedDescriptor&) = delete;
  MappedDescriptor& operator=(const MappedDescriptor&) = delete;

  // Read-only memory unless mapped writable.
  absl::Span<std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedDescriptor(std::byte* data, size_t size) : data_(data), size_(size) {}
  std::byte* data_;
  size_t size_;
};

}  // namespace odmoe
