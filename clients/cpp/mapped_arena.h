// A store's arena, mapped as it grows and shrinks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cpp/mapped_descriptor.h"
#include "services/core/experts/arena_shape.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/segment_message.h"

namespace odmoe {

// One reserved range of addresses, over which segments are mapped read-only. Map and Unmap by one
// thread; the rest by any.
class MappedArena {
 public:
  // RESOURCE_EXHAUSTED: no address space.
  static absl::StatusOr<std::unique_ptr<MappedArena>> Reserve(const ArenaShape& shape);
  ~MappedArena();
  MappedArena(const MappedArena&) = delete;
  MappedArena& operator=(const MappedArena&) = delete;

  // Does what a kMap or kUnmap message says. `pins`: this client's. FAILED_PRECONDITION: it does
  // not fit the shape, or a descriptor does not fit it; or a slot that is to go is pinned, which
  // happens to a client that was out for so long that the store has ended its session: it stays
  // mapped. RESOURCE_EXHAUSTED: cannot be mapped.
  absl::Status Apply(const SegmentMessage& message, const std::vector<OwnedFd>& fds,
                     const PinPage& pins);

  const std::byte* base() const { return base_; }
  // By segment: whether it is mapped.
  const std::atomic<bool>* mapped() const { return mapped_.get(); }

 private:
  MappedArena(const ArenaShape& shape, std::byte* reserved, uint64_t reserved_bytes);
  absl::Status Map(const SegmentMessage::Segment& segment, const OwnedFd& fd);
  absl::Status Unmap(const SegmentMessage::Segment& segment, const PinPage& pins);

  const ArenaShape shape_;
  std::byte* const reserved_;
  const uint64_t reserved_bytes_;
  std::byte* const base_;
  const std::unique_ptr<std::atomic<bool>[]> mapped_;
  std::vector<std::unique_ptr<MappedDescriptor>> segments_;  // by number; null: not mapped
};

}  // namespace odmoe
