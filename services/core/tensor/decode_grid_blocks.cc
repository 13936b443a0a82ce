// Blocks of 256 elements whose codes are points of a grid in 8 (IQ1, IQ2) or 4 (IQ3) dimensions.
#include <bit>
#include <cstring>

#include "services/core/tensor/decoders.h"

namespace odmoe {
namespace {

constexpr float kLevels2[4] = {8, 25, 43, 0};
constexpr float kLevels3XXS[8] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr float kLevels3S[8] = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr float kLevels1[4] = {-1, 0, 1, 0};

template <typename T>
T LoadWord(const uint8_t* at) {
  T word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

// Seven signs a group of eight; the eighth makes their number even.
uint8_t EvenSigns(uint32_t seven) {
  seven &= 127;
  return static_cast<uint8_t>(seven | static_cast<uint32_t>(std::popcount(seven) % 2) << 7);
}

// Eight elements of a 2-bit point, bit j of `signs` for minus.
void Decode8(uint16_t point, uint8_t signs, float scale, float* out) {
  for (int j = 0; j < 8; ++j) {
    out[j] = scale * kLevels2[point >> (2 * j) & 3] * ((signs >> j & 1) != 0 ? -1.0f : 1.0f);
  }
}

// Four of a 3-bit point; the signs are the low four bits.
void Decode4(uint16_t point, const float* levels, int signs, float scale, float* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = scale * levels[point >> (3 * j) & 7] * ((signs >> j & 1) != 0 ? -1.0f : 1.0f);
  }
}

// Eight of IQ1: levels -1, 0, 1, moved by an eighth up or down.
void DecodeMoved8(unsigned index, bool down, float scale, float* out) {
  const float delta = down ? -0.125f : 0.125f;
  for (int j = 0; j < 8; ++j) {
    out[j] = scale * (kLevels1[kGridIQ1[index & 2047] >> (2 * j) & 3] + delta);
  }
}

float QuarterScale(float d, unsigned code) {
  return d * (0.5f + static_cast<float>(code)) * 0.25f;
}

// d; per 32 elements four bytes of points and a word of four times seven signs and a scale.
void DecodeIQ2_XXS(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int s = 0; s < 8; ++s) {
    const uint8_t* points = block + 2 + 8 * s;
    const auto word = LoadWord<uint32_t>(points + 4);
    const float scale = QuarterScale(d, word >> 28);
    for (int l = 0; l < 4; ++l) {
      Decode8(kGridIQ2_XXS[points[l]], EvenSigns(word >> (7 * l)), scale, out + 32 * s + 8 * l);
    }
  }
}

// d; words of a 9-bit point and seven signs; nibbles of scales of each 16.
void DecodeIQ2_XS(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int g = 0; g < 32; ++g) {
    const auto word = LoadWord<uint16_t>(block + 2 + 2 * g);
    const unsigned code = block[66 + g / 4] >> (4 * (g / 2 % 2)) & 15;
    Decode8(kGridIQ2_XS[word & 511], EvenSigns(word >> 9), QuarterScale(d, code), out + 8 * g);
  }
}

// d; points' low bytes; signs; points' high pairs, four a byte; nibbles of scales of each 16.
void DecodeIQ2_S(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int g = 0; g < 32; ++g) {
    const unsigned high = block[66 + g / 4] >> (2 * (g % 4)) & 3;
    const unsigned code = block[74 + g / 4] >> (4 * (g / 2 % 2)) & 15;
    Decode8(kGridIQ2_S[block[2 + g] | high << 8], block[34 + g], QuarterScale(d, code),
            out + 8 * g);
  }
}

// d; bytes of points; per 32 elements a word of four times seven signs and a scale.
void DecodeIQ3_XXS(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int g = 0; g < 64; ++g) {
    const auto word = LoadWord<uint32_t>(block + 66 + 4 * (g / 8));
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    const int signs = EvenSigns(word >> (7 * (g % 8 / 2))) >> (4 * (g % 2));
    Decode4(kGridIQ3_XXS[block[2 + g]], kLevels3XXS, signs, scale, out + 4 * g);
  }
}

// d; points' low bytes; their ninth bits; signs; nibbles of scales of each 32.
void DecodeIQ3_S(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int g = 0; g < 64; ++g) {
    const unsigned high = block[66 + g / 8] >> (g % 8) & 1;
    const int code = block[106 + g / 16] >> (4 * (g / 8 % 2)) & 15;
    const float scale = d * static_cast<float>(1 + 2 * code);
    const int signs = block[74 + g / 2] >> (4 * (g % 2));
    Decode4(kGridIQ3_S[block[2 + g] | high << 8], kLevels3S, signs, scale, out + 4 * g);
  }
}

// d; points' low bytes; per 32 elements a word of four high parts of 3 bits, a scale, the move.
void DecodeIQ1_S(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int g = 0; g < 32; ++g) {
    const unsigned word = LoadWord<uint16_t>(block + 34 + 2 * (g / 4));
    const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
    const unsigned high = word >> (3 * (g % 4)) & 7;
    DecodeMoved8(block[2 + g] | high << 8, (word & 0x8000u) != 0, scale, out + 8 * g);
  }
}

// Points' low bytes; nibbles of a high part of 3 bits and a move; four words of four 3-bit scales
// of each 16, whose top nibbles are together the f16 scale.
void DecodeIQ1_M(const uint8_t* block, float* out) {
  unsigned words[4];
  for (int i = 0; i < 4; ++i) words[i] = LoadWord<uint16_t>(block + 48 + 2 * i);
  const float d = F16ToF32(static_cast<uint16_t>((words[0] >> 12) | (words[1] >> 8 & 0x00f0u) |
                                                 (words[2] >> 4 & 0x0f00u) | (words[3] & 0xf000u)));
  for (int g = 0; g < 32; ++g) {
    const unsigned code = words[g / 8] >> (3 * (g / 2 % 4)) & 7;
    const unsigned nibble = block[32 + g / 2] >> (4 * (g % 2)) & 15;
    DecodeMoved8(block[g] | (nibble & 7) << 8, (nibble & 8) != 0,
                 d * static_cast<float>(2 * code + 1), out + 8 * g);
  }
}

}  // namespace

BlockDecoder FindGridBlockDecoder(DType dtype) {
  switch (dtype) {
    case DType::kIQ2_XXS: return &DecodeIQ2_XXS;
    case DType::kIQ2_XS: return &DecodeIQ2_XS;
    case DType::kIQ2_S: return &DecodeIQ2_S;
    case DType::kIQ3_XXS: return &DecodeIQ3_XXS;
    case DType::kIQ3_S: return &DecodeIQ3_S;
    case DType::kIQ1_S: return &DecodeIQ1_S;
    case DType::kIQ1_M: return &DecodeIQ1_M;
    default: return nullptr;
  }
}

}  // namespace odmoe
