// Rows of a checkpoint's weight, whatever it is stored as.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/huggingface/checkpoint.h"

namespace odmoe {

// Rows [first, first + count) of a weight stored plainly, seen as a matrix of `columns` columns, as
// they are stored.
absl::Status ReadStoredRows(const CheckpointTensor& tensor, int64_t columns, int64_t first,
                            int64_t count, std::vector<std::byte>& bytes);

// The same rows of any weight as numbers, row by row. A quantized one's columns are its own.
absl::Status ReadWeightRows(const CheckpointTensor& tensor, int64_t columns, int64_t first,
                            int64_t count, std::vector<float>& values);

// Rows of int4 packs as Q4_0 blocks: the same codes and scales in another order. Requires
// FitsQ4_0(tensor).
absl::Status ReadQ4_0Rows(const CheckpointTensor& tensor, int64_t first, int64_t count,
                          std::vector<std::byte>& bytes);

// Whether a weight is Q4_0 but for the order of its bits: int4 packs in groups of 32 with scales
// that are all F16 numbers. Reads the scales, an eighth of the packs.
absl::StatusOr<bool> FitsQ4_0(const CheckpointTensor& tensor);

// FP8 E4M3 without infinities, as a checkpoint stores it.
float E4M3ToF32(uint8_t bits);

}  // namespace odmoe
