#include "services/core/experts/pin_page.h"

#include <algorithm>
#include <new>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr uint64_t kMagic = 0x31304750444d4f44u;  // "DOMDPG01", little-endian
constexpr uint32_t kVersion = 1;
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
      kMagic, kVersion, sizeof(PinPageHeader), epoch, slot_count, kAccessRingEntries, 0, {0}, {0},
      {0}};
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

void PinPage::Pin(uint32_t slot) {
  // Sequentially consistent: in the one order of these accesses the pin is before the client's
  // second look at the residency word (residency_protocol.h).
  pins_[slot].fetch_add(1, std::memory_order_seq_cst);
}

void PinPage::Unpin(uint32_t slot) {
  // Releases the client's reads of the slot to the evictor that sees the count at 0.
  pins_[slot].fetch_sub(1, std::memory_order_release);
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

void PinPage::TakeAccesses(uint64_t expert_count, uint64_t& position,
                           std::vector<int64_t>& experts) const {
  const uint64_t end = header_->accesses.load(std::memory_order_acquire);
  // Also where a client has set the count back: the difference wraps round to a large one.
  if (end - position > kAccessRingEntries)
    position = end - std::min<uint64_t>(end, kAccessRingEntries);
  for (; position != end; ++position) {
    const uint32_t entry = ring_[position % kAccessRingEntries].load(std::memory_order_acquire);
    if (entry != 0 && entry <= expert_count) experts.push_back(int64_t{entry} - 1);
  }
}

}  // namespace odmoe
