// Makes or checks items, a piece of them after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/output/output_plan.h"
#include "converter/output/xxh3.h"
#include "converter/progress.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/io/file.h"

namespace odmoe {

// Takes a piece of an item, which comes `done` bytes after its beginning; `hash` is XXH3-64 of all
// the item's bytes up to the piece's end.
using PieceSink =
    std::function<absl::Status(uint64_t done, absl::Span<const std::byte> piece, uint64_t hash)>;

// An item on its way to its place.
struct ItemInHand {
  const OutputItem* item = nullptr;  // null: all of it is there
  uint64_t begun = 0;                // its bytes that are there
  Xxh3* hash = nullptr;              // of those; then of all
  PieceSink sink;                    // gets the others, in order
};

// One worker's tools. Not thread-safe.
class ItemWriter {
 public:
  // Copies are made in pieces of `piece_bytes` at most.
  static absl::StatusOr<ItemWriter> Create(StepProgress& progress, size_t piece_bytes);

  // Makes what is missing of an item, and counts it as done. What is made, not copied, is made from
  // the item's beginning all the same. INTERNAL: a part that makes more or fewer bytes than it
  // said.
  absl::Status Write(const ItemInHand& hand);

  // The same for the items of a group.
  absl::Status WriteTogether(absl::Span<const ItemInHand> hands,
                             const std::function<absl::Status(absl::Span<const ByteSink>)>& make);

  // Whether the item's first `bytes` bytes in `file` have the hash `expected`; `hash` becomes
  // theirs. Counts them as done where so.
  absl::StatusOr<bool> Matches(const OutputItem& item, const RandomAccessFile& file, uint64_t bytes,
                               uint64_t expected, Xxh3& hash);

 private:
  ItemWriter(StepProgress& progress, AlignedBuffer buffer)
      : progress_(&progress), buffer_(std::move(buffer)) {}
  // The part that begins `at` bytes after the item does.
  absl::Status Copy(const ItemInHand& hand, const OutputPart& part, uint64_t at);

  StepProgress* progress_;
  AlignedBuffer buffer_;
};

}  // namespace odmoe
