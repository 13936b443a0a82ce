// BitNet's i2_s: ternary weights in two bits, with one scale for the whole tensor behind its rows.
//
//   block of 128 weights, 32 bytes: byte j holds weights j, j + 32, j + 64 and j + 96, the first in
//   its two highest bits; code 0 is -1, 1 is 0, 2 is +1, and 3 stands for nothing
//   after the last row: the scale, an f32, and 28 bytes of zeros
//
// This is the layout of BitNet's x86 builds and of the files it is distributed in. Its ARM builds
// write another one (blocks of 64 in 16 bytes) under the same id, which nothing in a file tells.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace odmoe {

inline constexpr int64_t kI2_SBlock = 128;
inline constexpr uint64_t kI2_SBlockBytes = 32;
// Behind the rows: the scale, padded.
inline constexpr uint64_t kI2_SScaleBytes = 32;

// A row's bytes from its weights -1, 0 and 1, a whole number of blocks: codes.size() / 4 bytes.
void EncodeI2_SRow(absl::Span<const int8_t> codes, std::byte* out);

// The inverse. False: a code that stands for nothing, which decodes as 0.
bool DecodeI2_SRow(const std::byte* in, absl::Span<int8_t> codes);

// A block's weights as floats; the code that stands for nothing as 0.
void DecodeI2_SBlock(const uint8_t* block, float* out);

// What lies behind the rows, kI2_SScaleBytes bytes.
void EncodeI2_SScale(float scale, std::byte* out);
float DecodeI2_SScale(const std::byte* in);

}  // namespace odmoe
