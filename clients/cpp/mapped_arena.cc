#include "clients/cpp/mapped_arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {

absl::StatusOr<std::unique_ptr<MappedArena>> MappedArena::Reserve(const ArenaShape& shape) {
  // One huge page more, so that the range may begin with one.
  const uint64_t bytes = shape.address_bytes() + ArenaShape::kHugePageBytes;
  void* reserved = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);
  if (reserved == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot reserve ", FormatBytes(bytes), " of addresses for the expert ",
                     "store's arena: ", std::strerror(errno),
                     "; is the process's address space limited (ulimit -v)?"));
  }
  return absl::WrapUnique(new MappedArena(shape, static_cast<std::byte*>(reserved), bytes));
}

MappedArena::MappedArena(const ArenaShape& shape, std::byte* reserved, uint64_t reserved_bytes)
    : shape_(shape),
      reserved_(reserved),
      reserved_bytes_(reserved_bytes),
      base_(reserved + RoundUp(reinterpret_cast<uintptr_t>(reserved), ArenaShape::kHugePageBytes) -
            reinterpret_cast<uintptr_t>(reserved)),
      mapped_(std::make_unique<std::atomic<bool>[]>(shape.segment_limit)),
      segments_(shape.segment_limit) {}

MappedArena::~MappedArena() {
  segments_.clear();
  munmap(reserved_, reserved_bytes_);
}

absl::Status MappedArena::Apply(const SegmentMessage& message, const std::vector<OwnedFd>& fds,
                                const PinPage& pins) {
  const bool map = message.kind == SegmentMessage::Kind::kMap;
  if (map && fds.size() != message.segments.size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a message of ", message.segments.size(), " segments with ", fds.size(), " descriptors"));
  }
  for (size_t i = 0; i < message.segments.size(); ++i) {
    const SegmentMessage::Segment& segment = message.segments[i];
    if (segment.number >= shape_.segment_limit || segment.slots == 0 ||
        segment.slots > shape_.segment_slots) {
      return absl::FailedPreconditionError(absl::StrCat(
          "segment ", segment.number, " of ", segment.slots, " slots; the arena has at most ",
          shape_.segment_limit, " of ", shape_.segment_slots));
    }
    if (map) {
      ODMOE_RETURN_IF_ERROR(Map(segment, fds[i]));
    } else {
      ODMOE_RETURN_IF_ERROR(Unmap(segment, pins));
    }
  }
  return absl::OkStatus();
}

absl::Status MappedArena::Map(const SegmentMessage::Segment& segment, const OwnedFd& fd) {
  if (segments_[segment.number] != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("segment ", segment.number, " is mapped already"));
  }
  ODMOE_ASSIGN_OR_RETURN(
      segments_[segment.number],
      MappedDescriptor::Map(fd, segment.slots * shape_.slot_bytes, /*writable=*/false,
                            base_ + shape_.SegmentOffset(segment.number)));
  mapped_[segment.number].store(true);
  return absl::OkStatus();
}

absl::Status MappedArena::Unmap(const SegmentMessage::Segment& segment, const PinPage& pins) {
  // A hit pins first and looks at `mapped` then; here it is the other way round. All of it is
  // sequentially consistent, so one of the two sees the other.
  mapped_[segment.number].store(false);
  const uint32_t first = shape_.FirstSlot(segment.number);
  for (uint32_t slot = first; slot < first + shape_.segment_slots; ++slot) {
    if (!pins.Pinned(slot)) continue;
    mapped_[segment.number].store(true);
    return absl::FailedPreconditionError(
        absl::StrCat("the store takes back segment ", segment.number, ", of which slot ", slot,
                     " is pinned"));
  }
  segments_[segment.number].reset();
  return absl::OkStatus();
}

}  // namespace odmoe
