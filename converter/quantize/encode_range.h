// A range of a tensor in other formats: read and decoded once, encoded into each.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "converter/output/output_plan.h"
#include "converter/quantize/importance_matrix.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {

// Elements [first, first + count) of a model's tensor, in the order they are stored.
struct TensorRange {
  const GgufTensor* tensor = nullptr;
  int64_t first = 0;
  int64_t count = 0;
};

// A format the range is wanted in, and who takes its bytes.
struct EncodeTarget {
  DType dtype = DType::kF32;
  const ByteSink* sink = nullptr;
};

// No row may be longer: one is the least that is held in memory.
inline constexpr int64_t kMaxQuantizedColumns = int64_t{1} << 22;

// Gives each target the range's bytes in its format, in order: copied where that is the tensor's
// own, else encoded from its values, weighed by `importance` where that is not null and has the
// tensor. Whole rows, but for a range no target of which is encoded. Holds half a million elements,
// or one row, in each of their forms. Thread-safe; the same bytes at every call. INVALID_ARGUMENT:
// a weight that is NaN or infinite, or becomes so (names tensor and row); importance of another
// size. UNIMPLEMENTED: the tensor's format cannot be decoded.
absl::Status EncodeTensorRange(const GgufModel& model, const TensorRange& range,
                               const ImportanceMatrix* importance,
                               absl::Span<const EncodeTarget> targets);

}  // namespace odmoe
