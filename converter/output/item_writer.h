// Makes or checks one item at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/output/output_plan.h"
#include "converter/output/xxh3.h"
#include "converter/progress.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/io/file.h"

namespace odmoe {

// One worker's tools. Not thread-safe.
class ItemWriter {
 public:
  static absl::StatusOr<ItemWriter> Create(StepProgress& progress);

  // Writes the item's bytes to their place and returns their XXH3-64. INTERNAL: a part that makes
  // more or fewer bytes than it said.
  absl::StatusOr<uint64_t> Write(const OutputItem& item, WritableFile& out);

  // An item and the file it is written to.
  struct Place {
    const OutputItem* item = nullptr;
    WritableFile* out = nullptr;  // null: the item is there
  };
  // The same for the items of a group: a hash each, 0 of those that are there.
  absl::StatusOr<std::vector<uint64_t>> WriteTogether(
      absl::Span<const Place> places,
      const std::function<absl::Status(absl::Span<const ByteSink>)>& make);

  // Whether the item's bytes in `file` have this hash. Counts them as done where so.
  absl::StatusOr<bool> Matches(const OutputItem& item, const RandomAccessFile& file, uint64_t hash);

 private:
  ItemWriter(StepProgress& progress, AlignedBuffer buffer)
      : progress_(&progress), buffer_(std::move(buffer)) {}
  absl::Status Copy(const OutputItem& item, const OutputPart& part, uint64_t to, WritableFile& out);
  absl::Status Make(const OutputItem& item, const OutputPart& part, uint64_t to, WritableFile& out);

  StepProgress* progress_;
  AlignedBuffer buffer_;
  Xxh3 hash_;
};

}  // namespace odmoe
