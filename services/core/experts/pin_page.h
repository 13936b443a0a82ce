// One client's pins: shared memory that the client writes and the store reads.
//
// The layout is a contract between processes: PinPageHeader; a ring of kAccessRingEntries 32-bit
// words, each an accessed expert's index plus one; then one 32-bit pin count a slot.
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
  uint32_t reserved;
  std::atomic<uint64_t> hits;           // experts pinned without the store's help
  std::atomic<uint64_t> stall_ns;       // time the client waited for misses
  std::atomic<uint64_t> accesses;       // ever written to the ring
};
static_assert(sizeof(PinPageHeader) == 64 && std::atomic<uint64_t>::is_always_lock_free);

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

  // The client's side. Requires slot < slot_count(). Pins of one slot add up.
  void Pin(uint32_t slot);
  void Unpin(uint32_t slot);
  // Tells the policy that a resident expert was demanded.
  void RecordAccess(int64_t expert);
  void CountHits(uint64_t experts);
  void CountStall(uint64_t nanoseconds);

  // The store's side.
  bool Pinned(uint32_t slot) const;
  uint64_t hits() const { return header_->hits.load(std::memory_order_relaxed); }
  uint64_t stall_ns() const { return header_->stall_ns.load(std::memory_order_relaxed); }
  // Appends to `experts` the accesses since `position`, oldest first, and moves `position`, which
  // the store keeps. Indices at or above `expert_count` are left out.
  void TakeAccesses(uint64_t expert_count, uint64_t& position, std::vector<int64_t>& experts) const;

 private:
  PinPage(std::byte* memory, uint64_t slot_count);

  PinPageHeader* header_;
  std::atomic<uint32_t>* ring_;
  std::atomic<uint32_t>* pins_;
  uint64_t slot_count_;
};

}  // namespace odmoe
