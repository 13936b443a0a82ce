// Which experts are resident, and where: shared memory that the store writes and its clients read.
//
// The layout is a contract between processes: ResidencyHeader, then one 64-bit word an expert, by
// ExpertCatalog::IndexOf. A word is 0 for an expert that is not resident, else the slot plus one in
// the low 32 bits and the slot's generation in the high 32.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/experts/arena_shape.h"

namespace odmoe {

// Sizes that a store and its clients must agree on.
struct ResidencyShape {
  int64_t epoch = 0;          // changes with every opening of every store
  uint64_t expert_count = 0;  // words
  uint64_t slot_count = 0;    // slots the arena may ever have, below 2^32 - 1: the largest budget's
  uint64_t slot_bytes = 0;    // one slot's
  uint32_t segment_slots = 1; // a power of two that divides slot_count

  ArenaShape arena() const {
    return {slot_bytes, segment_slots, static_cast<uint32_t>(slot_count / segment_slots)};
  }

  friend bool operator==(const ResidencyShape&, const ResidencyShape&) = default;
};

// Where a resident expert lies.
struct Residency {
  uint32_t slot = 0;
  uint32_t generation = 0;  // how often the slot has been filled, modulo 2^32

  friend bool operator==(const Residency&, const Residency&) = default;
};

// What the memory begins with.
struct ResidencyHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;
  int64_t epoch;
  uint64_t expert_count;
  uint64_t slot_count;
  uint64_t slot_bytes;
  uint32_t segment_slots;
  std::atomic<uint32_t> closed;     // 1 once the store has given the arena up
  std::atomic<uint32_t> max_batch;  // experts one client can hold at once; changes with the budget
  uint32_t reserved;
};
static_assert(sizeof(ResidencyHeader) == 64 && std::atomic<uint32_t>::is_always_lock_free);

using ResidencyWord = std::atomic<uint64_t>;
static_assert(sizeof(ResidencyWord) == 8 && ResidencyWord::is_always_lock_free);

// A client's view: never writes, so that it works on a read-only mapping. Does not own the memory,
// which outlives it. Thread-safe, lock-free; copies name the same table.
class ResidencyTable {
 public:
  // Bytes a table of so many experts takes.
  static uint64_t BytesFor(uint64_t expert_count);

  // A table that another process has formatted. FAILED_PRECONDITION: not a table, another version,
  // or one whose sizes do not fit `memory`.
  static absl::StatusOr<ResidencyTable> Attach(absl::Span<const std::byte> memory);

  ResidencyShape shape() const;
  // True once no store stands behind the table any more.
  bool closed() const { return header_->closed.load(std::memory_order_acquire) != 0; }
  // Experts one client can hold at once, under the budget of now.
  size_t max_batch() const { return header_->max_batch.load(std::memory_order_relaxed); }
  // The raw word, or 0 for an expert out of range.
  uint64_t LoadWord(int64_t expert) const;
  // Where a word says its expert lies; nothing for 0.
  static std::optional<Residency> Decode(uint64_t word);
  std::optional<Residency> Find(int64_t expert) const { return Decode(LoadWord(expert)); }

 protected:
  ResidencyTable(const ResidencyHeader* header, const ResidencyWord* words)
      : header_(header), words_(words), expert_count_(header->expert_count) {}

  const ResidencyHeader* header_;
  const ResidencyWord* words_;
  uint64_t expert_count_;  // read once: the bound that every access is held to
};

// The store's view. One thread at a time writes.
class ResidencyTableWriter : public ResidencyTable {
 public:
  // Makes an empty table in zeroed memory of at least BytesFor(shape.expert_count), aligned to 64.
  static ResidencyTableWriter Format(absl::Span<std::byte> memory, const ResidencyShape& shape);

  // Requires an expert in range.
  void Publish(int64_t expert, Residency residency);
  void Unpublish(int64_t expert);
  void SetMaxBatch(uint32_t experts);
  // Tells clients to take nothing more from this table.
  void Close();

 private:
  ResidencyTableWriter(ResidencyHeader* header, ResidencyWord* words)
      : ResidencyTable(header, words), writable_header_(header), writable_words_(words) {}

  ResidencyHeader* writable_header_;
  ResidencyWord* writable_words_;
};

}  // namespace odmoe
