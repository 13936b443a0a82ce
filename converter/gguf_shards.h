// A GGUF model as an output: one file, or several shards of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/output/output_plan.h"
#include "services/core/formats/gguf_writer.h"

namespace odmoe {

struct GgufShard {
  std::string path;
  GgufHeader header;        // laid out
  size_t first_tensor = 0;  // of the model's
};

// How many tensors each shard takes where each takes them in order as long as they fit `max_bytes`
// of tensor data, at least one; 0: all in one file. `tensors` are laid out.
std::vector<size_t> CountTensorsBySize(absl::Span<const GgufTensor> tensors, uint64_t max_bytes);

// The model as files: `counts` says how many of its tensors each gets. One is `path` itself,
// several are "<path without .gguf>-00001-of-0000N.gguf": the first has all keys, each its number
// (split.no, split.count, split.tensors.count). INVALID_ARGUMENT: more than 65535 shards, which the
// format cannot count.
absl::StatusOr<std::vector<GgufShard>> CutIntoShards(const GgufHeader& header,
                                                     absl::Span<const size_t> counts,
                                                     const std::string& path);

// The shard's file, with its header and without items. Tensor data begins where the header ends.
absl::StatusOr<OutputFile> PlanGgufFile(const GgufShard& shard);

}  // namespace odmoe
