#include "services/expert_storage/slot_table.h"

#include "services/core/experts/residency_protocol.h"

namespace odmoe {

void SlotTable::Add(uint32_t first, uint32_t count) {
  in_circulation_ += count;
  // Downwards, so that the lowest is taken first.
  for (uint32_t slot = first + count; slot-- > first;) {
    slots_[slot].retired = false;
    MakeFree(slot);
  }
}

void SlotTable::MakeFree(uint32_t slot) {
  slots_[slot].expert = kNoExpert;
  if (slots_[slot].retired) {
    slots_[slot].use = Use::kAbsent;
  } else {
    slots_[slot].use = Use::kFree;
    free_.push_back(slot);
  }
}

void SlotTable::Retire(uint32_t first, uint32_t count) {
  in_circulation_ -= count;
  for (uint32_t slot = first; slot < first + count; ++slot) {
    slots_[slot].retired = true;
    if (slots_[slot].use == Use::kFree) slots_[slot].use = Use::kAbsent;
  }
  std::erase_if(free_, [this](uint32_t slot) { return slots_[slot].retired; });
}

void SlotTable::Restore(uint32_t first, uint32_t count) {
  in_circulation_ += count;
  for (uint32_t slot = first + count; slot-- > first;) {
    slots_[slot].retired = false;
    if (slots_[slot].use == Use::kAbsent) MakeFree(slot);
  }
}

std::optional<uint32_t> SlotTable::Take() {
  if (free_.empty()) return std::nullopt;
  const uint32_t slot = free_.back();
  free_.pop_back();
  slots_[slot].use = Use::kTaken;
  return slot;
}

void SlotTable::Return(uint32_t slot) { MakeFree(slot); }

uint32_t SlotTable::Fill(uint32_t slot, int64_t expert) {
  slots_[slot].use = Use::kHeld;
  slots_[slot].expert = expert;
  return ++slots_[slot].generation;
}

void SlotTable::Empty(uint32_t slot) {
  slots_[slot].use = Use::kTaken;
  slots_[slot].expert = kNoExpert;
}

void SlotTable::Drain(uint32_t slot) {
  slots_[slot].use = Use::kDraining;
  slots_[slot].expert = kNoExpert;
  draining_.push_back(slot);
}

void SlotTable::CollectDrained(absl::Span<const PinPage> pages) {
  std::erase_if(draining_, [&](uint32_t slot) {
    if (AnyPins(pages, slot)) return false;
    MakeFree(slot);
    return true;
  });
}

SlotTable::Remaining SlotTable::CountRemaining(uint32_t first, uint32_t count) const {
  Remaining remaining;
  for (uint32_t slot = first; slot < first + count; ++slot) {
    if (!slots_[slot].retired) continue;
    remaining.filling += slots_[slot].use == Use::kTaken ? 1 : 0;
    remaining.pinned += slots_[slot].use == Use::kDraining ? 1 : 0;
  }
  return remaining;
}

uint64_t SlotTable::CountCirculating(uint32_t first, uint32_t count) const {
  uint64_t circulating = 0;
  for (uint32_t slot = first; slot < first + count; ++slot) {
    circulating += slots_[slot].retired ? 0 : 1;
  }
  return circulating;
}

}  // namespace odmoe
