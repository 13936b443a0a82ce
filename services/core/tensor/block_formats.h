// What encoders and decoders of the block formats share: constants of the formats and a decoder a
// block. Pure functions.
//
// f16 scales are little-endian. "Nibbles" of n bytes hold 2n codes: byte j has code j in its low
// half and code j + n in its high half.
#pragma once

#include <cstdint>

#include "services/core/tensor/dtype.h"

namespace odmoe {

inline constexpr int kSuperBlock = 256;  // elements of a block of the K, TQ and most IQ formats

// Values of the codes of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of the codes of E2M1 (MXFP4, NVFP4): OCP Microscaling Formats 1.0, table 5.
inline constexpr int8_t kFP4DoubledValues[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                 0, -1, -2, -3, -4, -6, -8, -12};

// Half of the E8M0 scale 2^(e - 127), exact for every e; 255 (NaN in OCP's text) is 2^127.
float HalfE8M0(uint8_t e);

// Six-bit scale and min of sub-block `j` of the eight of a q4_K or q5_K block, out of its 12 bytes:
// the first four lie in the low bits of bytes j and j + 4; the others' low nibbles share byte
// j + 4 and their high pairs are the top bits of bytes j - 4 and j.
struct ScaleAndMin {
  uint8_t scale;
  uint8_t min;
};
ScaleAndMin UnpackScaleAndMin(int j, const uint8_t* scales);

// Writes Info(dtype).block_elements values of the block of Info(dtype).block_bytes bytes.
using BlockDecoder = void (*)(const uint8_t* block, float* out);

// Of i2_s, whose scale is the tensor's, the weights before that. nullptr: a format without blocks,
// or one that is not decoded.
BlockDecoder FindBlockDecoder(DType dtype);

}  // namespace odmoe
