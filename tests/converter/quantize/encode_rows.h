// Rows to encode, the same floats on every machine: made of integers only.
#pragma once

#include <cstdint>
#include <vector>

namespace odmoe {

inline constexpr int64_t kEncodeColumns = 768;  // 3 super-blocks
inline constexpr int64_t kEncodeRows = 64;

// Weights as models have them, and the edges: zeros of both signs, one huge value among small ones,
// subnormals, ties, constants, one sign only, every magnitude, any finite bits. All are finite.
std::vector<float> EncodeRowsInput();

// One weight a column: none, small and large ones, whole sub-blocks of zeros.
std::vector<float> EncodeRowsImportance();

}  // namespace odmoe
