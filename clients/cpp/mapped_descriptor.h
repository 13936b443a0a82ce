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

// One packet, with what came with it.
struct DescriptorPacket {
  std::string bytes;
  std::vector<OwnedFd> fds;
};

// What a store hands out for a token at first.
struct FetchedDescriptors {
  OwnedFd socket;  // to be kept as long as anything is mapped: its end tells the store
  std::string bytes;
  std::vector<OwnedFd> fds;
};

// Connects to a SOCK_SEQPACKET socket, sends `token`, and receives a packet with exactly `count`
// descriptors, within five seconds. UNAVAILABLE: nobody there. PERMISSION_DENIED: another user's
// socket, or the token was refused.
absl::StatusOr<FetchedDescriptors> FetchDescriptors(const std::string& socket_path,
                                                    const std::string& token, size_t count);

// The next packet, within five seconds. UNAVAILABLE: the other end is gone, or silent.
absl::StatusOr<DescriptorPacket> ReceivePacket(const OwnedFd& socket);

// A sealed memfd of another process, mapped. The mapping stays valid when that process ends.
class MappedDescriptor {
 public:
  // FAILED_PRECONDITION: not sealed against shrinking (a mapping that can be cut short faults), or
  // not of `bytes`. RESOURCE_EXHAUSTED: no address space. `place` not null: over what is mapped
  // there, a reservation, which comes back at the end.
  static absl::StatusOr<std::unique_ptr<MappedDescriptor>> Map(const OwnedFd& fd, uint64_t bytes,
                                                               bool writable,
                                                               std::byte* place = nullptr);
  ~MappedDescriptor();
  MappedDescriptor(const MappedDescriptor&) = delete;
  MappedDescriptor& operator=(const MappedDescriptor&) = delete;

  // Read-only memory unless mapped writable.
  absl::Span<std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedDescriptor(std::byte* data, size_t size, bool placed)
      : data_(data), size_(size), placed_(placed) {}
  std::byte* data_;
  size_t size_;
  bool placed_;
};

}  // namespace odmoe
