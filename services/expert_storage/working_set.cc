#include "services/expert_storage/working_set.h"

#include <algorithm>
#include <utility>

#include "services/core/experts/residency_protocol.h"

namespace odmoe {

WorkingSet::WorkingSet(ResidencyTableWriter table, std::unique_ptr<EvictionPolicy> policy)
    : table_(table),
      policy_(std::move(policy)),
      experts_(table.shape().expert_count),
      slots_(table.shape().slot_count) {}

void WorkingSet::RetireSlots(uint32_t first, uint32_t count, absl::Span<const PinPage> pages) {
  evicted_.clear();
  slots_.Retire(first, count);
  for (uint32_t slot = first; slot < first + count; ++slot) {
    const int64_t expert = slots_.ExpertIn(slot);
    if (expert == SlotTable::kNoExpert) continue;
    // Not as an eviction goes, which a pin would stop: hits that overlap could keep it pinned for
    // good. So it is unpublished first, and its pins are waited for.
    table_.Unpublish(expert);
    Forget(expert);
    slots_.Drain(slot);
  }
  slots_.CollectDrained(pages);
}

SlotTable::Remaining WorkingSet::CountRemaining(uint32_t first, uint32_t count,
                                                absl::Span<const PinPage> pages) {
  slots_.CollectDrained(pages);
  return slots_.CountRemaining(first, count);
}

uint64_t WorkingSet::LastDemand(uint32_t slot) const {
  const int64_t expert = slots_.ExpertIn(slot);
  return expert == SlotTable::kNoExpert ? 0 : experts_[expert].last_demand;
}

std::optional<uint32_t> WorkingSet::Find(int64_t expert) const {
  const int32_t slot = experts_[expert].slot;
  if (slot < 0) return std::nullopt;
  return static_cast<uint32_t>(slot);
}

WorkingSet::Charge& WorkingSet::ChargeOf(int32_t tenant) {
  if (charges_.size() <= static_cast<size_t>(tenant)) charges_.resize(tenant + 1);
  return charges_[tenant];
}

void WorkingSet::SetQuota(int32_t tenant, uint64_t slots) { ChargeOf(tenant).quota = slots; }

uint64_t WorkingSet::charged(int32_t tenant) const {
  return static_cast<size_t>(tenant) < charges_.size() ? charges_[tenant].slots : 0;
}

std::optional<uint32_t> WorkingSet::TakeSlot(Purpose purpose, int32_t tenant,
                                             absl::Span<const PinPage> pages,
                                             int64_t wished) {
  slots_.CollectDrained(pages);
  evicted_.clear();
  const bool prefetch = purpose == Purpose::kPrefetch;
  uint64_t candidates = prefetch ? std::min(resident_, kPrefetchVictims) : resident_;
  for (;; --candidates) {
    // Looked at anew each time: a victim handed over makes room under the quota.
    const bool own = ChargeOf(tenant).full();
    if (const auto slot = own ? std::nullopt : slots_.Take()) {
      ++ChargeOf(tenant).slots;
      return slot;
    }
    if (candidates == 0 || purpose == Purpose::kRestore) return std::nullopt;
    const int64_t victim = policy_->Victim(own ? tenant : kAnyTenant);
    if (victim < 0 || (prefetch && TooGood(victim, wished))) return std::nullopt;
    if (own && HandOver(victim)) continue;
    const auto slot = Evict(victim, pages);
    if (!slot) {
      policy_->Skipped(victim);
    } else if (own && ChargeOf(tenant).full()) {
      slots_.Return(*slot);  // the quota was lowered
    } else {
      ++ChargeOf(tenant).slots;
      return slot;
    }
  }
}

bool WorkingSet::TooGood(int64_t victim, int64_t wished) const {
  return JustDemanded(experts_[victim]) ||
         (wished >= 0 && policy_->ExpectedSooner(victim, wished));
}

bool WorkingSet::HandOver(int64_t expert) {
  ExpertState& state = experts_[expert];
  if (state.sharer == kNobody || ChargeOf(state.sharer).full()) return false;
  --charges_[state.tenant].slots;
  ++charges_[state.sharer].slots;
  state.tenant = static_cast<uint16_t>(state.sharer);
  state.sharer = kNobody;
  policy_->HandedOver(expert, state.tenant);
  ++counters_.handed_over;
  return true;
}

std::optional<uint32_t> WorkingSet::Evict(int64_t expert, absl::Span<const PinPage> pages) {
  const auto slot = TryEvict(table_, pages, expert);
  if (!slot) return std::nullopt;
  Forget(expert);
  slots_.Empty(*slot);
  return slot;
}

void WorkingSet::Forget(int64_t expert) {
  ExpertState& state = experts_[expert];
  state.slot = -1;
  if (state.prefetched) ++counters_.prefetch_wasted;
  evicted_.push_back({expert, state.prefetched});
  state.prefetched = false;
  policy_->Removed(expert);
  if (recorder_ != nullptr) recorder_->Evicted(expert, state.tenant);
  --charges_[state.tenant].slots;
  --resident_;
  ++counters_.evictions;
}

bool WorkingSet::JustDemanded(const ExpertState& state) const {
  return state.last_demand > 0 && demands_ - state.last_demand < (slots_.in_circulation() + 3) / 4;
}

void WorkingSet::ReturnSlot(uint32_t slot, int32_t tenant) {
  --ChargeOf(tenant).slots;
  slots_.Return(slot);
}

void WorkingSet::Publish(int64_t expert, uint32_t slot, int32_t tenant, Arrival arrival) {
  if (slots_.retired(slot)) {
    --ChargeOf(tenant).slots;
    slots_.Drain(slot);
    return;
  }
  ExpertState& state = experts_[expert];
  state.slot = static_cast<int32_t>(slot);
  state.tenant = static_cast<uint16_t>(tenant);
  state.sharer = kNobody;
  state.prefetched = arrival == Arrival::kWished;
  if (arrival == Arrival::kDemanded) state.last_demand = ++demands_;
  policy_->Inserted(expert, tenant, arrival);
  if (recorder_ != nullptr) recorder_->Inserted(expert);
  ++resident_;
  table_.Publish(expert, {slot, slots_.Fill(slot, expert)});
}

void WorkingSet::Demanded(uint64_t client, int32_t tenant, int64_t expert) {
  policy_->Demanded(client, expert);
  if (shadows_ != nullptr) {
    shadows_->SetCapacity(slots_.in_circulation());
    shadows_->Demanded(client, expert);
  }
  if (recorder_ != nullptr) recorder_->Demanded(expert, tenant);
  ExpertState& state = experts_[expert];
  if (state.slot < 0) return;
  state.last_demand = ++demands_;
  if (state.tenant != tenant) state.sharer = static_cast<int16_t>(tenant);
  if (state.prefetched) ++counters_.prefetch_useful;
  state.prefetched = false;
}

void WorkingSet::ClientGone(uint64_t client) {
  policy_->ClientGone(client);
  if (shadows_ != nullptr) shadows_->ClientGone(client);
}

std::vector<ShadowPolicyHits> WorkingSet::ShadowHits() const {
  return shadows_ == nullptr ? std::vector<ShadowPolicyHits>() : shadows_->Hits();
}

}  // namespace odmoe
