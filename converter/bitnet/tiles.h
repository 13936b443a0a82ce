// Weights of -1, 0 and 1 in the order in which BitNet's table-lookup kernels read them.
//
// A pair of weights a, b of a row is the number 3a + b + 4, and a triple a, b, c is |9a + 3b + c|
// with its sign apart, both four bits: indices into a table of sums. Two indices of a row make a
// byte, the first in its high half. Bytes go through blocks of block_rows by block_columns, block
// by block along the columns, and in a block through groups of lane_rows rows, whose bytes for the
// same columns are one or two vectors.
//
//   tl1: all columns in pairs. A vector is 16 rows
//   tl2: the columns up to a multiple of block_columns in triples, then their signs (one 16-bit
//   word
//        for rows r and r + 16 of 32: eight triples' signs of each, alternating, the first
//        highest), then the other columns in pairs, in blocks of 32. A vector is 32 rows, of which
//        8 to 15 and 16 to 23 have changed places
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "converter/bitnet/kernel_shape.h"

namespace odmoe {

// The whole matrix, TensorBytes(dtype, shape.columns, shape.rows) long. `codes` are its rows.
// `dtype`: kTL1 or kTL2. INVALID_ARGUMENT: a tiling against the rules, or codes of another number.
absl::StatusOr<std::vector<std::byte>> EncodeTiles(DType dtype, const KernelShape& shape,
                                                   absl::Span<const int8_t> codes);

// The inverse. DATA_LOSS: an index that no weights have. INVALID_ARGUMENT: as above.
absl::StatusOr<std::vector<int8_t>> DecodeTiles(DType dtype, const KernelShape& shape,
                                                absl::Span<const std::byte> tiles);

}  // namespace odmoe
