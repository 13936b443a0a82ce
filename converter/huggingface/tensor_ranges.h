// Parts of an output tensor, made without the rest of it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/huggingface/output_tensor.h"

namespace odmoe {

// The tensor cut into recipes whose bytes, one after the other, are its bytes: each of at least
// `min_bytes`, but the last, and not much more where rows allow it. Of each, `info` is the whole
// tensor's but for `bytes`.
absl::StatusOr<std::vector<OutputTensor>> CutTensor(const OutputTensor& tensor, uint64_t min_bytes);

// Bytes [offset, offset + out.size()) of the tensor's data. OUT_OF_RANGE: past its end. Otherwise
// as StreamTensor. Makes a row, or a transposed part, as a whole for any byte of it.
absl::Status ReadTensorRange(const OutputTensor& tensor, uint64_t offset,
                             absl::Span<std::byte> out);

}  // namespace odmoe
