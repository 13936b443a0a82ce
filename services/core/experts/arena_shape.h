// How the slots of an arena lie in memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "services/core/base/units.h"

namespace odmoe {

// Slots lie in segments, each memory of its own that may come and go, at fixed places in one range
// of addresses: slot s is the (s % segment_slots)th of segment s / segment_slots. A segment may
// have fewer slots than there is room for.
struct ArenaShape {
  uint64_t slot_bytes = 0;     // one expert's place, a multiple of 4096
  uint32_t segment_slots = 1;  // at most, a power of two
  uint32_t segment_limit = 0;  // segments the arena may ever have

  uint64_t slot_limit() const { return uint64_t{segment_slots} * segment_limit; }
  // Distance of two segments: whole huge pages, where a segment is as large as one, so that the
  // kernel may map it by them.
  uint64_t segment_stride() const {
    const uint64_t bytes = segment_slots * slot_bytes;
    return bytes < kHugePageBytes ? bytes : RoundUp(bytes, kHugePageBytes);
  }
  uint64_t address_bytes() const { return segment_limit * segment_stride(); }

  uint32_t SegmentOf(uint32_t slot) const {
    return slot >> static_cast<uint32_t>(std::countr_zero(segment_slots));
  }
  uint32_t FirstSlot(uint32_t segment) const { return segment * segment_slots; }
  // Of the segment's first byte, and of a slot's, from that of the range.
  uint64_t SegmentOffset(uint32_t segment) const { return segment * segment_stride(); }
  uint64_t SlotOffset(uint32_t slot) const {
    return SegmentOffset(SegmentOf(slot)) + (slot & (segment_slots - 1)) * slot_bytes;
  }

  static constexpr uint64_t kHugePageBytes = 2 * kMiB;

  friend bool operator==(const ArenaShape&, const ArenaShape&) = default;
};

}  // namespace odmoe
