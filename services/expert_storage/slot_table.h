// What each slot of the arena holds, and which slots there are.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "services/core/experts/pin_page.h"

namespace odmoe {

// A slot's way: absent, until its segment comes; free; taken, to be filled or handed on; held by an
// expert; taken again when that is evicted. Slots whose segment is to go are retired: they leave
// circulation as they are, and are absent once nobody fills or pins them any more.
//
// 16 bytes a slot. Not thread-safe: the store calls it under its lock.
class SlotTable {
 public:
  static constexpr int64_t kNoExpert = -1;

  // Slots 0 .. slot_limit - 1, all absent.
  explicit SlotTable(uint64_t slot_limit) : slots_(slot_limit) {}

  uint64_t limit() const { return slots_.size(); }
  // Slots that are there and not retired.
  uint64_t in_circulation() const { return in_circulation_; }
  bool any_free() const { return !free_.empty(); }

  // Absent slots come, free.
  void Add(uint32_t first, uint32_t count);
  // Slots leave circulation. Who holds an expert is the caller's to Drain.
  void Retire(uint32_t first, uint32_t count);
  // Retired slots that are not absent yet come back, as they are; those that are, free.
  void Restore(uint32_t first, uint32_t count);
  // True for a slot that is retired or absent.
  bool retired(uint32_t slot) const { return slots_[slot].retired; }

  // A free slot, taken.
  std::optional<uint32_t> Take();
  // A taken slot that holds nothing is free again.
  void Return(uint32_t slot);
  // A taken slot holds the expert. Returns how often it has been filled.
  uint32_t Fill(uint32_t slot, int64_t expert);
  // The expert of a slot, or kNoExpert.
  int64_t ExpertIn(uint32_t slot) const { return slots_[slot].expert; }
  // A slot that held an expert is taken.
  void Empty(uint32_t slot);
  // A held or taken slot can be found by nobody any more, but may still be pinned: it is free once
  // CollectDrained finds that it is not.
  void Drain(uint32_t slot);
  void CollectDrained(absl::Span<const PinPage> pages);

  // Retired slots that are not absent yet: being filled, or pinned still.
  struct Remaining {
    uint64_t filling = 0;
    uint64_t pinned = 0;
    uint64_t total() const { return filling + pinned; }
  };
  Remaining CountRemaining(uint32_t first, uint32_t count) const;
  // Slots in circulation of so many from `first`.
  uint64_t CountCirculating(uint32_t first, uint32_t count) const;

 private:
  enum class Use : uint8_t { kAbsent, kFree, kTaken, kHeld, kDraining };
  struct Slot {
    int64_t expert = kNoExpert;
    uint32_t generation = 0;
    Use use = Use::kAbsent;
    bool retired = true;
  };

  void MakeFree(uint32_t slot);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;  // the last is taken next
  std::vector<uint32_t> draining_;
  uint64_t in_circulation_ = 0;
};

}  // namespace odmoe
