// Which expert is in which slot, and which slot to give up.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/residency_table.h"
#include "services/expert_storage/policy/eviction_policy.h"

namespace odmoe {

// Bookkeeping of the arena's slots: 16 bytes an expert and 16 a slot, beside the policy's and the
// residency table's. Not thread-safe: the store calls it under its lock.
class WorkingSet {
 public:
  // What a slot is wanted for. A prefetch takes no slot whose expert was demanded recently: among
  // the last slot_count / 4 demands, rounded up.
  enum class Purpose { kDemand, kPrefetch };

  // How prefetches of experts and evictions went.
  struct Counters {
    uint64_t evictions = 0;
    uint64_t prefetch_useful = 0;
    uint64_t prefetch_wasted = 0;
  };

  WorkingSet(ResidencyTableWriter table, std::unique_ptr<EvictionPolicy> policy);

  // The slot of a resident expert.
  std::optional<uint32_t> Find(int64_t expert) const;
  // A slot to read an expert into: a free one, else an evicted expert's. Nothing: all slots are
  // pinned, being filled, or for a prefetch too good to lose. `pages`: all clients'.
  std::optional<uint32_t> TakeSlot(Purpose purpose, absl::Span<const PinPage> pages);
  // Gives back a slot whose read failed.
  void ReturnSlot(uint32_t slot);
  // The slot holds the expert now, and clients may find it.
  void Publish(int64_t expert, uint32_t slot, bool prefetched);
  // Expert was demanded. Not resident: nothing happens.
  void Touch(int64_t expert);

  uint64_t resident() const { return resident_; }
  // Slots that some page pins.
  uint64_t CountPinned(absl::Span<const PinPage> pages) const;
  const Counters& counters() const { return counters_; }

 private:
  struct ExpertState {
    int32_t slot = -1;
    bool prefetched = false;   // and not demanded since
    uint64_t last_demand = 0;  // demand number; 0: never
  };
  static constexpr int64_t kNoExpert = -1;
  struct SlotState {
    int64_t expert = kNoExpert;
    uint32_t generation = 0;
  };

  // Prefetches look at no more victims than this, so that they hold the lock but briefly.
  static constexpr uint64_t kPrefetchVictims = 8;

  std::optional<uint32_t> Evict(int64_t expert, absl::Span<const PinPage> pages);
  bool JustDemanded(const ExpertState& state) const;

  ResidencyTableWriter table_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<ExpertState> experts_;
  std::vector<SlotState> slots_;
  std::vector<uint32_t> free_slots_;
  uint64_t resident_ = 0;
  uint64_t demands_ = 0;
  Counters counters_;
};

}  // namespace odmoe
