// Blocks of 32 to 128 elements, one scale each (NVFP4: four).
#include <bit>
#include <cmath>
#include <cstring>

#include "services/core/tensor/convert.h"
#include "services/core/tensor/decoders.h"

namespace odmoe {
namespace {

// x = d * (code - 8)
void DecodeQ4_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((block[2 + j] & 15) - 8) * d;
    out[j + 16] = static_cast<float>((block[2 + j] >> 4) - 8) * d;
  }
}

// x = d * code + m
void DecodeQ4_1(const uint8_t* block, float* out) {
  const float d = LoadF16(block), m = LoadF16(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(block[4 + j] & 15) * d + m;
    out[j + 16] = static_cast<float>(block[4 + j] >> 4) * d + m;
  }
}

// The fifth bit of code j is bit j of a 32-bit word.
void UnpackFiveBits(const uint8_t* high, const uint8_t* nibbles, int codes[32]) {
  uint32_t bits;
  std::memcpy(&bits, high, sizeof(bits));
  for (int j = 0; j < 16; ++j) {
    codes[j] = (nibbles[j] & 15) | static_cast<int>((bits >> j & 1) << 4);
    codes[j + 16] = (nibbles[j] >> 4) | static_cast<int>((bits >> (j + 16) & 1) << 4);
  }
}

void DecodeQ5_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  int codes[32];
  UnpackFiveBits(block + 2, block + 6, codes);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(codes[j] - 16) * d;
}

void DecodeQ5_1(const uint8_t* block, float* out) {
  const float d = LoadF16(block), m = LoadF16(block + 2);
  int codes[32];
  UnpackFiveBits(block + 4, block + 8, codes);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(codes[j]) * d + m;
}

void DecodeQ8_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

// One bit an element: d or -d.
void DecodeQ1_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int j = 0; j < 128; ++j) out[j] = (block[2 + j / 8] >> (j % 8) & 1) != 0 ? d : -d;
}

// Two bits an element, four in a row a byte: -d, 0, d, 2 d.
void DecodeQ2_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int j = 0; j < 64; ++j) {
    out[j] = static_cast<float>((block[2 + j / 4] >> (2 * (j % 4)) & 3) - 1) * d;
  }
}

void DecodeNibbles(const uint8_t* nibbles, int count, const int8_t* values, float d, float* out) {
  for (int j = 0; j < count; ++j) {
    out[j] = d * static_cast<float>(values[nibbles[j] & 15]);
    out[j + count] = d * static_cast<float>(values[nibbles[j] >> 4]);
  }
}

void DecodeIQ4_NL(const uint8_t* block, float* out) {
  DecodeNibbles(block + 2, 16, kIQ4Values, LoadF16(block), out);
}

// Six-bit scales of eight sub-blocks of 32: pairs of high bits in a word, low nibbles two a byte.
void DecodeIQ4_XS(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  const unsigned high = block[2] | block[3] << 8;
  for (int s = 0; s < 8; ++s) {
    const int low = block[4 + s / 2] >> (4 * (s % 2)) & 15;
    const int scale = low | static_cast<int>(high >> (2 * s) & 3) << 4;
    DecodeNibbles(block + 8 + 16 * s, 16, kIQ4Values, d * static_cast<float>(scale - 32),
                  out + 32 * s);
  }
}

void DecodeMXFP4(const uint8_t* block, float* out) {
  DecodeNibbles(block + 1, 16, kFP4DoubledValues, HalfE8M0(block[0]), out);
}

// Half of an unsigned E4M3 scale (bias 7), as the FP4 values are doubled. The top bit is no part of
// the number, and of it the all-ones code is NaN, which counts as zero.
float HalfUE4M3(uint8_t bits) {
  if (bits == 0 || bits == 0x7f) return 0.0f;
  const int exponent = bits >> 3 & 15;
  const float mantissa = static_cast<float>(bits & 7);
  const float scale = exponent == 0 ? std::ldexp(mantissa, -9)
                                    : std::ldexp(1.0f + mantissa / 8.0f, exponent - 7);
  return scale * 0.5f;
}

// Four sub-blocks of 16: four scales, then the nibbles.
void DecodeNVFP4(const uint8_t* block, float* out) {
  for (int s = 0; s < 4; ++s) {
    DecodeNibbles(block + 4 + 8 * s, 8, kFP4DoubledValues, HalfUE4M3(block[s]), out + 16 * s);
  }
}

}  // namespace

float HalfE8M0(uint8_t e) {
  // 2^-128 and 2^-127 are subnormal.
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

BlockDecoder FindSmallBlockDecoder(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return &DecodeQ4_0;
    case DType::kQ4_1: return &DecodeQ4_1;
    case DType::kQ5_0: return &DecodeQ5_0;
    case DType::kQ5_1: return &DecodeQ5_1;
    case DType::kQ8_0: return &DecodeQ8_0;
    case DType::kQ1_0: return &DecodeQ1_0;
    case DType::kQ2_0: return &DecodeQ2_0;
    case DType::kIQ4_NL: return &DecodeIQ4_NL;
    case DType::kIQ4_XS: return &DecodeIQ4_XS;
    case DType::kMXFP4: return &DecodeMXFP4;
    case DType::kNVFP4: return &DecodeNVFP4;
    default: return nullptr;
  }
}

}  // namespace odmoe
