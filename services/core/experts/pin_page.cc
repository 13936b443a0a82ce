#include "services/core/experts/pin_page.h"

#include <algorithm>
#include <new>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr uint64_t kMagic = 0x31304750444d4f44u;  // "DOMDPG01", little-endian
constexpr uint32_t kVersion = 2;
constexpr uint64_t kRingBytes = kAccessRingEntries * sizeof(uint32_t);

}  // namespace

PinPage::PinPage(std::byte* memory, uint64_t slot_count)
    : header_(reinterpret_cast<PinPageHeader*>(memory)),
      ring_(reinterpret_cast<std::atomic<uint32_t>*>(memory + sizeof(PinPageHeader))),
      pins_(reinterpret_cast<std::atomic<uint32_t>*>(memory + sizeof(PinPageHeader) + kRingBytes)),
      slot_count_(slot_count) {}

uint64_t PinPage::BytesFor(uint64_t slot_count) {
  return sizeof(PinPageHeader) + kRingBytes + slot_count * sizeof(uint32_t);
}

PinPage PinPage::Format(absl::Span<std::byte> memory, int64_t epoch, uint64_t slot_count) {
  PinPage page(memory.data(), slot_count);
  for (uint32_t i = 0; i < kAccessRingEntries; ++i) new (&page.ring_[i]) std::atomic<uint32_t>(0);
  for (uint64_t i = 0; i < slot_count; ++i) new (&page.pins_[i]) std::atomic<uint32_t>(0);
  new (memory.data()) PinPageHeader{
      kMagic, kVersion, sizeof(PinPageHeader), epoch, slot_count, kAccessRingEntries,
      {kNoLimit}, {0}, {0}, {0}, {0}, {}};
  return page;
}

absl::StatusOr<PinPage> PinPage::Attach(absl::Span<std::byte> memory, int64_t epoch,
                                        uint64_t slot_count) {
  if (memory.size() < BytesFor(slot_count)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "pin page of ", memory.size(), " bytes, expected ", BytesFor(slot_count)));
  }
  const auto* header = reinterpret_cast<const PinPageHeader*>(memory.data());
  if (header->magic != kMagic || header->version != kVersion ||
      header->header_bytes != sizeof(PinPageHeader) ||
      header->ring_entries != kAccessRingEntries) {
    return absl::FailedPreconditionError(
        absl::StrCat("not a pin page of version ", kVersion, ": magic ", absl::Hex(header->magic),
                     ", version ", header->version));
  }
  if (header->epoch != epoch || header->slot_count != slot_count) {
    return absl::FailedPreconditionError(
        absl::StrCat("pin page of epoch ", header->epoch, " with ", header->slot_count,
                     " slots, expected epoch ", epoch, " with ", slot_count));
  }
  return PinPage(memory.data(), slot_count);
}

bool PinPage::ReserveRoom(uint64_t slots, uint64_t limit) {
  if (header_->held.fetch_add(slots, std::memory_order_seq_cst) + slots <= limit) return true;
  GiveBackRoom(slots);
  return false;
}

bool PinPage::ReserveRoomForHits(uint64_t slots) {
  // The limit is read after the room is reserved, both sequentially consistent: so a store that has
  // lowered it and then sees no more than that held knows that no more will be.
  const uint64_t held = header_->held.fetch_add(slots, std::memory_order_seq_cst) + slots;
  const uint32_t limit = header_->slot_limit.load(std::memory_order_seq_cst);
  if (limit == kNoLimit || held <= limit) return true;
  GiveBackRoom(slots);
  return false;
}

void PinPage::SetSlotLimit(uint32_t slots) {
  header_->slot_limit.store(slots, std::memory_order_seq_cst);
}

void PinPage::Pin(uint32_t slot) {
  // Sequentially consistent: in the one order of these accesses the pin is before the client's
  // second look at the residency word (residency_protocol.h).
  if (pins_[slot].fetch_add(1, std::memory_order_seq_cst) == 0) ReserveRoom(1);
}

void PinPage::Unpin(uint32_t slot) {
  // Releases the client's reads of the slot to the evictor that sees the count at 0.
  if (pins_[slot].fetch_sub(1, std::memory_order_release) == 1) GiveBackRoom(1);
}

uint64_t PinPage::CountPinned() const {
  uint64_t pinned = 0;
  for (uint64_t slot = 0; slot < slot_count_; ++slot) {
    pinned += pins_[slot].load(std::memory_order_relaxed) != 0 ? 1 : 0;
  }
  return pinned;
}

bool PinPage::Pinned(uint32_t slot) const {
  return pins_[slot].load(std::memory_order_seq_cst) != 0;
}

void PinPage::RecordAccess(int64_t expert) {
  // The ring is advice to the policy. A store that looks between the two lines takes the entry of a
  // ring ago for this one; nothing but the order of evictions can come of it.
  const uint64_t position = header_->accesses.fetch_add(1, std::memory_order_relaxed);
  ring_[position % kAccessRingEntries].store(static_cast<uint32_t>(expert) + 1,
                                             std::memory_order_release);
}

void PinPage::CountHits(uint64_t experts) {
  header_->hits.fetch_add(experts, std::memory_order_relaxed);
}

void PinPage::CountStall(uint64_t nanoseconds) {
  header_->stall_ns.fetch_add(nanoseconds, std::memory_order_relaxed);
}

void PinPage::TakeAccesses(uint64_t expert_count, uint64_t until, uint64_t most, uint64_t& position,
                           std::vector<int64_t>& experts) const {
  // Also where a client has set the count back: the difference wraps round to a large one.
  if (until - position > kAccessRingEntries) {
    position = until - std::min<uint64_t>(until, kAccessRingEntries);
  }
  const uint64_t stop = position + std::min(until - position, most);
  for (; position != stop; ++position) {
    const uint32_t entry = ring_[position % kAccessRingEntries].load(std::memory_order_acquire);
    if (entry != 0 && entry <= expert_count) experts.push_back(int64_t{entry} - 1);
  }
}

}  // namespace odmoe
