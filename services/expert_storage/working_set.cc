#include "services/expert_storage/working_set.h"

#include <algorithm>
#include <utility>

#include "services/core/experts/residency_protocol.h"

namespace odmoe {

WorkingSet::WorkingSet(ResidencyTableWriter table, std::unique_ptr<EvictionPolicy> policy)
    : table_(table),
      policy_(std::move(policy)),
      experts_(table.shape().expert_count),
      slots_(table.shape().slot_count) {
  free_slots_.reserve(slots_.size());
  for (size_t slot = slots_.size(); slot-- > 0;) free_slots_.push_back(static_cast<uint32_t>(slot));
}

std::optional<uint32_t> WorkingSet::Find(int64_t expert) const {
  const int32_t slot = experts_[expert].slot;
  if (slot < 0) return std::nullopt;
  return static_cast<uint32_t>(slot);
}

std::optional<uint32_t> WorkingSet::TakeSlot(Purpose purpose, absl::Span<const PinPage> pages) {
  if (!free_slots_.empty()) {
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }
  const bool prefetch = purpose == Purpose::kPrefetch;
  uint64_t candidates = prefetch ? std::min(resident_, kPrefetchVictims) : resident_;
  for (; candidates > 0; --candidates) {
    const int64_t victim = policy_->Victim();
    if (victim < 0) break;
    if (prefetch && JustDemanded(experts_[victim])) break;
    if (auto slot = Evict(victim, pages)) return slot;
    policy_->Skipped(victim);
  }
  return std::nullopt;
}

std::optional<uint32_t> WorkingSet::Evict(int64_t expert, absl::Span<const PinPage> pages) {
  const auto slot = TryEvict(table_, pages, expert);
  if (!slot) return std::nullopt;
  ExpertState& state = experts_[expert];
  state.slot = -1;
  if (state.prefetched) ++counters_.prefetch_wasted;
  state.prefetched = false;
  slots_[*slot].expert = kNoExpert;
  policy_->Removed(expert);
  --resident_;
  ++counters_.evictions;
  return slot;
}

bool WorkingSet::JustDemanded(const ExpertState& state) const {
  return state.last_demand > 0 && demands_ - state.last_demand < (slots_.size() + 3) / 4;
}

void WorkingSet::ReturnSlot(uint32_t slot) { free_slots_.push_back(slot); }

void WorkingSet::Publish(int64_t expert, uint32_t slot, bool prefetched) {
  ExpertState& state = experts_[expert];
  state.slot = static_cast<int32_t>(slot);
  state.prefetched = prefetched;
  if (!prefetched) state.last_demand = ++demands_;
  slots_[slot].expert = expert;
  policy_->Inserted(expert);
  ++resident_;
  table_.Publish(expert, {slot, ++slots_[slot].generation});
}

void WorkingSet::Touch(int64_t expert) {
  ExpertState& state = experts_[expert];
  if (state.slot < 0) return;
  state.last_demand = ++demands_;
  if (state.prefetched) ++counters_.prefetch_useful;
  state.prefetched = false;
  policy_->Touched(expert);
}

uint64_t WorkingSet::CountPinned(absl::Span<const PinPage> pages) const {
  uint64_t pinned = 0;
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    pinned += std::any_of(pages.begin(), pages.end(),
                          [slot](const PinPage& page) { return page.Pinned(slot); });
  }
  return pinned;
}

}  // namespace odmoe
