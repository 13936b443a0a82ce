#include "services/expert_storage/arena/resize_plan.h"

#include <algorithm>

namespace odmoe {
namespace {

uint64_t SumSlots(const std::vector<SegmentUse>& segments) {
  uint64_t slots = 0;
  for (const SegmentUse& segment : segments) slots += segment.slots;
  return slots;
}

// New segments of so many slots together, with the lowest numbers that are not in `there`.
std::vector<Arena::Segment> Segments(const ArenaShape& shape, const std::vector<SegmentUse>& there,
                                     uint64_t slots) {
  std::vector<bool> used(shape.segment_limit, false);
  for (const SegmentUse& segment : there) used[segment.number] = true;
  std::vector<Arena::Segment> added;
  for (uint32_t number = 0; slots > 0 && number < shape.segment_limit; ++number) {
    if (used[number]) continue;
    const auto here = static_cast<uint32_t>(std::min<uint64_t>(slots, shape.segment_slots));
    added.push_back({number, here, -1});
    slots -= here;
  }
  return added;
}

// Moves what `goes` says from `there` to the plan.
template <typename Predicate>
void RetireThose(std::vector<SegmentUse>& there, ResizePlan& plan, Predicate goes) {
  std::erase_if(there, [&](const SegmentUse& segment) {
    if (!goes(segment)) return false;
    plan.retire.push_back(segment.number);
    return true;
  });
}

}  // namespace

ResizePlan PlanResize(const ArenaShape& shape, std::vector<SegmentUse> there,
                      uint64_t target_slots) {
  ResizePlan plan;
  uint64_t slots = SumSlots(there);
  std::stable_sort(there.begin(), there.end(), [](const SegmentUse& a, const SegmentUse& b) {
    return a.warmth < b.warmth;
  });
  if (slots > target_slots) {
    RetireThose(there, plan, [&](const SegmentUse& segment) {
      if (slots <= target_slots) return false;
      slots -= segment.slots;
      return true;
    });
  } else {
    const uint64_t numbers = shape.segment_limit - there.size();
    if (target_slots - slots > numbers * shape.segment_slots) {
      RetireThose(there, plan, [&](const SegmentUse& segment) {
        return segment.slots < shape.segment_slots;
      });
      slots = SumSlots(there);
    }
  }
  plan.add = Segments(shape, there, target_slots - slots);
  return plan;
}

}  // namespace odmoe
