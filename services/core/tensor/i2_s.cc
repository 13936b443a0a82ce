#include "services/core/tensor/i2_s.h"

#include <cstring>

namespace odmoe {
namespace {

constexpr size_t kWeightsPerByte = 4;
constexpr int kHighestShift = 6;

}  // namespace

void EncodeI2_SRow(absl::Span<const int8_t> codes, std::byte* out) {
  for (size_t block = 0; block < codes.size() / kI2_SBlock; ++block) {
    const int8_t* weights = codes.data() + block * kI2_SBlock;
    for (size_t j = 0; j < kI2_SBlockBytes; ++j) {
      unsigned bits = 0;
      for (size_t k = 0; k < kWeightsPerByte; ++k) {
        bits |= static_cast<unsigned>(weights[j + k * kI2_SBlockBytes] + 1)
                << (kHighestShift - 2 * k);
      }
      out[block * kI2_SBlockBytes + j] = static_cast<std::byte>(bits);
    }
  }
}

bool DecodeI2_SRow(const std::byte* in, absl::Span<int8_t> codes) {
  bool valid = true;
  for (size_t block = 0; block < codes.size() / kI2_SBlock; ++block) {
    int8_t* weights = codes.data() + block * kI2_SBlock;
    for (size_t j = 0; j < kI2_SBlockBytes; ++j) {
      const unsigned bits = static_cast<unsigned>(in[block * kI2_SBlockBytes + j]);
      for (size_t k = 0; k < kWeightsPerByte; ++k) {
        const unsigned code = (bits >> (kHighestShift - 2 * k)) & 3u;
        valid = valid && code != 3u;
        weights[j + k * kI2_SBlockBytes] =
            code == 3u ? int8_t{0} : static_cast<int8_t>(static_cast<int>(code) - 1);
      }
    }
  }
  return valid;
}

void DecodeI2_SBlock(const uint8_t* block, float* out) {
  int8_t codes[kI2_SBlock];
  DecodeI2_SRow(reinterpret_cast<const std::byte*>(block), absl::MakeSpan(codes));
  for (int64_t i = 0; i < kI2_SBlock; ++i) out[i] = codes[i];
}

void EncodeI2_SScale(float scale, std::byte* out) {
  std::memset(out, 0, kI2_SScaleBytes);
  std::memcpy(out, &scale, sizeof(scale));
}

float DecodeI2_SScale(const std::byte* in) {
  float scale = 0.0f;
  std::memcpy(&scale, in, sizeof(scale));
  return scale;
}

}  // namespace odmoe
