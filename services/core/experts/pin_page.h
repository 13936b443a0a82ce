// One client's pins: shared memory that the client writes and the store reads.
//
// The layout is a contract between processes: PinPageHeader; a ring of kAccessRingEntries 32-bit
// words, each an accessed expert's index plus one; then one 32-bit pin count a slot.
//
// A client holds a limited number of slots. It counts them itself, and so does the store what it
// pins for the client: each reserves room before it pins. So the count is never below the slots
// that are pinned, and never above the limit of when room was reserved; who pins more than that
// breaks the contract, and may be told from the pins.
//
// A client may be hostile or broken. What it writes can only cost it its own pins: the store keeps
// its own copy of every size, bounds every index, and reads at most one ring of accesses at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace odmoe {

// Accesses a client can make between two looks of the store before the oldest are forgotten.
inline constexpr uint32_t kAccessRingEntries = 8192;

struct PinPageHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;
  int64_t epoch;
  uint64_t slot_count;
  uint32_t ring_entries;
  std::atomic<uint32_t> slot_limit;  // that the client may hold; the store sets it
  std::atomic<uint64_t> hits;        // experts pinned without the store's help
  std::atomic<uint64_t> stall_ns;    // time the client waited for misses
  std::atomic<uint64_t> accesses;    // ever written to the ring
  std::atomic<uint64_t> held;        // slots pinned, and room reserved for more
  uint64_t reserved[7];
};
static_assert(sizeof(PinPageHeader) == 128 && std::atomic<uint64_t>::is_always_lock_free);

// A view of one page; does not own the memory, which outlives it. Thread-safe, lock-free; copies
// name the same page.
class PinPage {
 public:
  static uint64_t BytesFor(uint64_t slot_count);

  // Makes a page without pins in zeroed memory of at least BytesFor(slot_count), aligned to 64.
  static PinPage Format(absl::Span<std::byte> memory, int64_t epoch, uint64_t slot_count);
  // A page the store has made. FAILED_PRECONDITION: not a page, another version, of another epoch,
  // or one that does not fit `memory`.
  static absl::StatusOr<PinPage> Attach(absl::Span<std::byte> memory, int64_t epoch,
                                        uint64_t slot_count);

  uint64_t slot_count() const { return slot_count_; }

  // Both sides. Room for pins: false, and none is reserved, where the page would hold more than
  // `limit` slots. It is given back, once what was to be pinned is.
  bool ReserveRoom(uint64_t slots, uint64_t limit);
  void ReserveRoom(uint64_t slots) { header_->held.fetch_add(slots, std::memory_order_seq_cst); }
  void GiveBackRoom(uint64_t slots) { header_->held.fetch_sub(slots, std::memory_order_release); }
  // Slots pinned and room reserved, as the client says.
  uint64_t held() const { return header_->held.load(std::memory_order_seq_cst); }

  // The client's side. Requires slot < slot_count(). Pins of one slot add up.
  // By the limit of now.
  bool ReserveRoomForHits(uint64_t slots);
  void Pin(uint32_t slot);
  void Unpin(uint32_t slot);
  // Tells the policy that a resident expert was demanded.
  void RecordAccess(int64_t expert);
  void CountHits(uint64_t experts);
  void CountStall(uint64_t nanoseconds);

  // The store's side.
  static constexpr uint32_t kNoLimit = ~uint32_t{0};
  void SetSlotLimit(uint32_t slots);
  // Slots that are pinned. O(slot_count()).
  uint64_t CountPinned() const;
  bool Pinned(uint32_t slot) const;
  uint64_t hits() const { return header_->hits.load(std::memory_order_relaxed); }
  uint64_t stall_ns() const { return header_->stall_ns.load(std::memory_order_relaxed); }
  uint64_t accesses() const { return header_->accesses.load(std::memory_order_acquire); }
  // Appends to `experts` the accesses from `position`, which the store keeps and this moves, before
  // `until`, as accesses() was at some time: oldest first, and at most so many. Indices at or above
  // `expert_count` are left out.
  void TakeAccesses(uint64_t expert_count, uint64_t until, uint64_t most, uint64_t& position,
                    std::vector<int64_t>& experts) const;

 private:
  PinPage(std::byte* memory, uint64_t slot_count);

  PinPageHeader* header_;
  std::atomic<uint32_t>* ring_;
  std::atomic<uint32_t>* pins_;
  uint64_t slot_count_;
};

}  // namespace odmoe
