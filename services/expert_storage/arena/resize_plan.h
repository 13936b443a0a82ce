// From one size of an arena to another, by whole segments.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/experts/arena_shape.h"
#include "services/expert_storage/arena/arena.h"

namespace odmoe {

// A segment there is, and how useful its experts are: the mean of a number that grows with each
// demand.
struct SegmentUse {
  uint32_t number = 0;
  uint32_t slots = 0;
  double warmth = 0.0;
};

// First `retire` goes, whole; then `add` comes (fd unset). So the arena is never larger than the
// larger of the two sizes.
struct ResizePlan {
  std::vector<uint32_t> retire;
  std::vector<Arena::Segment> add;

  bool empty() const { return retire.empty() && add.empty(); }
};

// To shrink, the least warm segments go, and what they are too much comes back as one that is not
// whole. To grow, segments are added; those that are not whole are replaced only once numbers are
// short. Requires target_slots <= shape.slot_limit().
ResizePlan PlanResize(const ArenaShape& shape, std::vector<SegmentUse> there,
                      uint64_t target_slots);

}  // namespace odmoe
