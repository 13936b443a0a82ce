// How much to ask of a device at once, found by trying.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/expert_storage/sources/block_reader.h"

namespace odmoe {

struct IoTuning {
  IoShape shape;
  double bytes_per_second = 0;  // in the trial; 0: there was none
};

// A range of a model's files, for trial reads.
struct TrialExtent {
  std::shared_ptr<const OpenedFile> file;
  uint64_t offset = 0;  // a multiple of 4096
  uint64_t bytes = 0;   // likewise
};

// Bytes per second of reading the extents into `memory`, in turn and again from the first, for
// about `duration`; 0: a read failed, or `memory` does not hold what the shape has under way.
double MeasureRate(const std::vector<TrialExtent>& extents, absl::Span<std::byte> memory,
                   IoShape shape, std::unique_ptr<BlockReader> reader, absl::Duration duration);

// Reads the extents, in turn and again from the first, with different shapes for about `limit`
// altogether, and says which was best; one with less under way than another must be clearly faster.
// At most 32 MiB are under way, since what is cannot be overtaken. Blocks, and takes that memory
// meanwhile. An empty or small list, or reads that fail: the default shape.
IoTuning MeasureIo(const std::vector<TrialExtent>& extents,
                   const std::function<std::unique_ptr<BlockReader>(IoShape)>& make_reader,
                   absl::Duration limit);

}  // namespace odmoe
