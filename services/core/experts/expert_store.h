// What inference sees of expert storage: experts pinned in memory on demand.
//
//   auto batch = store.Acquire({{3, 17}, {3, 201}}, deadline);
//   if (!batch.ok()) return batch.status();
//   auto expert = (*batch)->Wait(0);      // bytes, until the batch is destroyed
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_id.h"

namespace odmoe {

// A pinned expert's bytes, read-only, 64-byte aligned at least.
struct ExpertView {
  const std::byte* data = nullptr;
  const ExpertLayout* layout = nullptr;  // lives as long as the store
};

// The experts of one Acquire. Owned by one thread at a time. Its destruction drops the pins; after
// that the views dangle.
class ExpertBatch {
 public:
  virtual ~ExpertBatch() = default;
  virtual size_t size() const = 0;
  // True once Wait(i) would not block. A hit is ready from the start.
  virtual bool Ready(size_t i) = 0;
  // Waits until Ready(i), `until` at most, and returns Ready(i): for who has more to heed while
  // waiting than the batch's deadline, as a request that may be cancelled.
  virtual bool AwaitReady(size_t i, absl::Time until) = 0;
  // Waits until expert i is pinned, the batch's deadline at most. May be called again.
  // DATA_LOSS: its bytes are corrupt; the others of the batch are not affected.
  // DEADLINE_EXCEEDED. UNAVAILABLE: the store went away; retry with a new Acquire.
  virtual absl::StatusOr<ExpertView> Wait(size_t i) = 0;
  // Experts of this batch that were resident when asked for.
  virtual size_t hits() const = 0;
};

// Counters since the store was opened, but for the gauges named so.
struct StoreStats {
  uint64_t budget_bytes = 0;      // gauge: the hard bound
  uint64_t slot_bytes = 0;        // gauge: one expert's place, rounded up to 4096
  uint64_t slot_count = 0;        // gauge: budget_bytes / slot_bytes
  uint64_t resident_experts = 0;  // gauge
  uint64_t resident_bytes = 0;    // gauge: resident_experts * slot_bytes <= budget_bytes
  uint64_t pinned_experts = 0;    // gauge
  uint64_t clients = 0;           // gauge: sessions open
  uint64_t huge_page_bytes = 0;   // gauge: of the arena, mapped by huge pages
  uint64_t locked_bytes = 0;      // gauge: of the arena, that cannot be swapped out
  uint64_t hits = 0;              // pinned without waiting
  uint64_t misses = 0;            // asked for and not resident
  uint64_t shared_misses = 0;     // misses that joined a read already under way
  uint64_t evictions = 0;
  uint64_t reads = 0;             // experts read from the source, for demand and for prefetch
  uint64_t bytes_read = 0;        // bytes of those
  uint64_t read_failures = 0;
  uint64_t checksum_failures = 0;
  uint64_t stall_ns = 0;          // time callers waited for misses, summed
  uint64_t prefetches = 0;        // experts asked to be prefetched
  uint64_t prefetch_reads = 0;    // of those, read
  uint64_t prefetch_useful = 0;   // of those, then pinned by a demand before their eviction
  uint64_t prefetch_wasted = 0;   // of those, evicted without
  uint64_t prefetch_dropped = 0;  // not read: resident, late, or no slot to spare
};

// A working set of one model's experts under a hard budget. Thread-safe.
class ExpertStore {
 public:
  virtual ~ExpertStore() = default;

  virtual const ExpertCatalog& catalog() const = 0;

  // Pins the experts `ids`, reading those that are not resident; returns at once, with the hits
  // pinned and the misses under way. A duplicate id counts once.
  // NOT_FOUND: no such expert. RESOURCE_EXHAUSTED: more than max_batch() ids, or all slots are
  // pinned until the deadline (then Wait says so). UNAVAILABLE: store unreachable, retry.
  virtual absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                               absl::Time deadline) = 0;

  // True: Acquire would likely pin the expert without waiting. A hint, out of date when it comes.
  virtual bool Resident(ExpertId) const { return false; }

  // Asks for experts that will likely be acquired soon. Never blocks, never pins, never evicts a
  // pinned expert, and may be ignored. Unknown ids are ignored.
  virtual void Prefetch(absl::Span<const ExpertId> ids) = 0;

  // The most experts one caller can hold at once.
  virtual size_t max_batch() const = 0;

  // UNAVAILABLE: store unreachable.
  virtual absl::StatusOr<StoreStats> Stats() = 0;
};

}  // namespace odmoe
