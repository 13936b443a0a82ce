// Which expert is in which slot, and which slot to give up.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/residency_table.h"
#include "services/expert_storage/policy/eviction_policy.h"
#include "services/expert_storage/policy/shadow_policies.h"
#include "services/expert_storage/slot_table.h"
#include "services/expert_storage/telemetry/demand_recorder.h"

namespace odmoe {

// Bookkeeping of the resident experts: 24 bytes an expert, beside the slots', the policy's and the
// residency table's. Not thread-safe: the store calls it under its lock.
//
// An expert is at the charge of the tenant that brought it, from TakeSlot until it is evicted. A
// tenant at its quota evicts what is at its charge, even while other slots are free; without quotas
// one global order holds. An expert that a tenant at its quota gives up, but that another tenant
// demanded meanwhile, is not lost: it goes over to the other's charge, where its quota has room.
class WorkingSet {
 public:
  // What a slot is wanted for. A prefetch takes no slot whose expert was demanded recently: among
  // the last slot_count / 4 demands, rounded up.
  // A restart puts experts back into free slots only.
  enum class Purpose { kDemand, kPrefetch, kRestore };
  // An upper bound of what it allocates for an expert, and for its slot where it is resident.
  static constexpr uint64_t kBytesPerExpert = 24 + 20;
  static constexpr uint64_t kNoQuota = ~uint64_t{0};

  // How prefetches of experts and evictions went.
  struct Counters {
    uint64_t evictions = 0;
    uint64_t handed_over = 0;  // to another tenant's charge instead
    uint64_t prefetch_useful = 0;
    uint64_t prefetch_wasted = 0;
  };

  // No slot is in circulation yet.
  WorkingSet(ResidencyTableWriter table, std::unique_ptr<EvictionPolicy> policy);

  // Slots come, free.
  void AddSlots(uint32_t first, uint32_t count) { slots_.Add(first, count); }
  // Slots leave: their experts are resident no more from now on, though who has pinned one keeps
  // it. They count as evicted().
  void RetireSlots(uint32_t first, uint32_t count, absl::Span<const PinPage> pages);
  // Those retired slots are in circulation again.
  void RestoreSlots(uint32_t first, uint32_t count) { slots_.Restore(first, count); }
  // Retired slots that are filled or pinned still.
  SlotTable::Remaining CountRemaining(uint32_t first, uint32_t count,
                                      absl::Span<const PinPage> pages);
  const SlotTable& slots() const { return slots_; }
  // When a slot's expert was last demanded, as a number that grows with each demand; 0: never, or
  // the slot is empty.
  uint64_t LastDemand(uint32_t slot) const;
  // Tells `recorder` of demands, insertions and evictions from now on; it outlives this.
  void set_recorder(DemandRecorder* recorder) { recorder_ = recorder; }

  // The slot of a resident expert.
  std::optional<uint32_t> Find(int64_t expert) const;
  // A slot to read an expert into, at the tenant's charge: a free one, else an evicted expert's.
  // Nothing: all slots, or all that the tenant's quota allows it, are pinned, being filled, or for
  // a prefetch too good to lose: demanded of late, or expected before the layer of the expert
  // `wished` for. `pages`: all clients'.
  std::optional<uint32_t> TakeSlot(Purpose purpose, int32_t tenant, absl::Span<const PinPage> pages,
                                   int64_t wished = -1);
  // What the last TakeSlot or RetireSlots evicted: of TakeSlot one expert as a rule.
  struct Eviction {
    int64_t expert = 0;
    bool unused = false;  // prefetched, and never demanded
  };
  absl::Span<const Eviction> evicted() const { return evicted_; }
  // Gives back a slot whose read failed.
  void ReturnSlot(uint32_t slot, int32_t tenant);
  // The slot, taken for the tenant, holds the expert now, and clients may find it; but for a slot
  // that was retired meanwhile, which only those get that the caller pins it for under the same
  // lock.
  void Publish(int64_t expert, uint32_t slot, int32_t tenant, Arrival arrival);
  // At whose charge a resident expert is.
  int32_t tenant(int64_t expert) const { return experts_[expert].tenant; }
  // A client of a tenant demanded an expert, resident or not: all experts of a layer that are
  // demanded together before a slot is taken for any of them.
  void Demanded(uint64_t client, int32_t tenant, int64_t expert);
  // The client will demand nothing more.
  void ClientGone(uint64_t client);

  // From now on other policies follow what is demanded.
  void Shadow(std::unique_ptr<ShadowPolicies> shadows) { shadows_ = std::move(shadows); }
  // What they would have hit; empty where none follows.
  std::vector<ShadowPolicyHits> ShadowHits() const;

  // Most slots at a tenant's charge; kNoQuota: no bound. Below what it has: it evicts its own as it
  // goes on.
  void SetQuota(int32_t tenant, uint64_t slots);
  // Slots at a tenant's charge: filled and being filled.
  uint64_t charged(int32_t tenant) const;

  // The policy's, for a restart.
  std::vector<EvictionPolicy::Rank> Ranks() { return policy_->Ranks(); }
  std::string SavePolicy() const { return policy_->SaveState(); }
  bool RestorePolicy(absl::string_view state) { return policy_->RestoreState(state); }

  uint64_t resident() const { return resident_; }
  const Counters& counters() const { return counters_; }

 private:
  struct ExpertState {
    int32_t slot = -1;
    uint16_t tenant = 0;       // at whose charge, while resident
    int16_t sharer = kNobody;  // another tenant that demanded it since; the last one
    bool prefetched = false;   // and not demanded since
    uint64_t last_demand = 0;  // demand number; 0: never
  };
  struct Charge {
    uint64_t slots = 0;
    uint64_t quota = kNoQuota;

    bool full() const { return slots >= quota; }
  };
  static constexpr int16_t kNobody = -1;

  // Prefetches look at no more victims than this, so that they hold the lock but briefly.
  static constexpr uint64_t kPrefetchVictims = 8;

  Charge& ChargeOf(int32_t tenant);
  // True: the expert is at a sharer's charge now.
  bool HandOver(int64_t expert);
  void Forget(int64_t expert);
  std::optional<uint32_t> Evict(int64_t expert, absl::Span<const PinPage> pages);
  // A victim that a prefetch does not get.
  bool TooGood(int64_t victim, int64_t wished) const;
  bool JustDemanded(const ExpertState& state) const;

  ResidencyTableWriter table_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::unique_ptr<ShadowPolicies> shadows_;  // may be null
  DemandRecorder* recorder_ = nullptr;
  std::vector<ExpertState> experts_;
  SlotTable slots_;
  std::vector<Charge> charges_;  // by tenant
  std::vector<Eviction> evicted_;
  uint64_t resident_ = 0;
  uint64_t demands_ = 0;
  Counters counters_;
};

}  // namespace odmoe
