// Blocks of 256 elements: the K formats, whose sub-blocks of 16 or 32 have quantized scales, and
// the ternary ones.
#include <cstring>

#include "services/core/tensor/decoders.h"

namespace odmoe {
namespace {

// Two bits a code in each half of 128: byte m of 32 has elements m, m + 32, m + 64, m + 96.
int TwoBits(const uint8_t* codes, int i) {
  return codes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3;
}

// 16 bytes of a 4-bit scale and a 4-bit min; codes; d; dmin. x = d * scale * code - dmin * min
void DecodeQ2_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 80), dmin = LoadF16(block + 82);
  for (int s = 0; s < 16; ++s) {
    const float scale = d * static_cast<float>(block[s] & 15);
    const float min = dmin * static_cast<float>(block[s] >> 4);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      out[i] = scale * static_cast<float>(TwoBits(block + 16, i)) - min;
    }
  }
}

// High bits, one plane a 32 elements; low two bits; 16 six-bit scales in 12 bytes: low nibbles two
// a byte (s and s + 8), then high pairs; d. x = d * (scale - 32) * (code - 4)
void DecodeQ3_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 108);
  const uint8_t* scales = block + 96;
  for (int s = 0; s < 16; ++s) {
    const int low = scales[s % 8] >> (4 * (s / 8)) & 15;
    const int high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int top = block[i % 32] >> (i / 32) & 1;
      out[i] = scale * static_cast<float>((TwoBits(block + 32, i) | top << 2) - 4);
    }
  }
}

// d; dmin; 12 bytes of scales and mins; nibbles of each 64. x = d * scale * code - dmin * min
void DecodeQ4_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block), dmin = LoadF16(block + 2);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin packed = UnpackScaleAndMin(s, block + 4);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    const uint8_t* nibbles = block + 16 + 32 * (s / 2);
    for (int i = 0; i < 32; ++i) {
      out[32 * s + i] = scale * static_cast<float>(nibbles[i] >> (4 * (s % 2)) & 15) - min;
    }
  }
}

// As q4_K, with a fifth bit: bit s of byte i is that of element i of sub-block s.
void DecodeQ5_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block), dmin = LoadF16(block + 2);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin packed = UnpackScaleAndMin(s, block + 4);
    const float scale = d * static_cast<float>(packed.scale);
    const float min = dmin * static_cast<float>(packed.min);
    const uint8_t* nibbles = block + 48 + 32 * (s / 2);
    for (int i = 0; i < 32; ++i) {
      const int low = nibbles[i] >> (4 * (s % 2)) & 15;
      const int high = block[16 + i] >> s & 1;
      out[32 * s + i] = scale * static_cast<float>(low | high << 4) - min;
    }
  }
}

// Per half of 128: 64 bytes of nibbles (bytes m and m + 32 hold elements m and m + 32, and in their
// high halves m + 64 and m + 96); high pairs; 16 signed scales; d. x = d * scale * (code - 32)
void DecodeQ6_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 208);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, m = i % 32;
    const int low = block[64 * half + 32 * (quarter % 2) + m] >> (4 * (quarter / 2)) & 15;
    const int high = block[128 + 32 * half + m] >> (2 * quarter) & 3;
    const auto scale = static_cast<int8_t>(block[192 + i / 16]);
    out[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
  }
}

// A float d, 256 bytes, and sums that products use.
void DecodeQ8_K(const uint8_t* block, float* out) {
  float d;
  std::memcpy(&d, block, sizeof(d));
  for (int i = 0; i < kSuperBlock; ++i) {
    out[i] = d * static_cast<float>(static_cast<int8_t>(block[4 + i]));
  }
}

// A byte is five digits of base three as a fraction of 256: multiplying by 3^n modulo 256 brings
// digit n to the front, and times 3 over 256 takes it off.
float Trit(uint8_t byte, int n, float d) {
  static constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const auto shifted = static_cast<uint8_t>(byte * kPowers[n]);
  return static_cast<float>((shifted * 3 >> 8) - 1) * d;
}

// Five elements, 32 apart, in each of 32 bytes; five, 16 apart, in 16; four, 4 apart, in 4; d.
void DecodeTQ1_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 52);
  for (int i = 0; i < 160; ++i) out[i] = Trit(block[i % 32], i / 32, d);
  for (int i = 0; i < 80; ++i) out[160 + i] = Trit(block[32 + i % 16], i / 16, d);
  for (int i = 0; i < 16; ++i) out[240 + i] = Trit(block[48 + i % 4], i / 4, d);
}

void DecodeTQ2_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 64);
  for (int i = 0; i < kSuperBlock; ++i) out[i] = static_cast<float>(TwoBits(block, i) - 1) * d;
}

}  // namespace

ScaleAndMin UnpackScaleAndMin(int j, const uint8_t* scales) {
  if (j < 4) {
    return {static_cast<uint8_t>(scales[j] & 63), static_cast<uint8_t>(scales[j + 4] & 63)};
  }
  return {static_cast<uint8_t>((scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4),
          static_cast<uint8_t>((scales[j + 4] >> 4) | (scales[j] >> 6) << 4)};
}

BlockDecoder FindSuperBlockDecoder(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K: return &DecodeQ2_K;
    case DType::kQ3_K: return &DecodeQ3_K;
    case DType::kQ4_K: return &DecodeQ4_K;
    case DType::kQ5_K: return &DecodeQ5_K;
    case DType::kQ6_K: return &DecodeQ6_K;
    case DType::kQ8_K: return &DecodeQ8_K;
    case DType::kTQ1_0: return &DecodeTQ1_0;
    case DType::kTQ2_0: return &DecodeTQ2_0;
    default: return nullptr;
  }
}

}  // namespace odmoe
