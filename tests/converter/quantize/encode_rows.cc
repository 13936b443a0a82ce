#include "tests/converter/quantize/encode_rows.h"

#include <bit>
#include <cmath>

#include "services/core/tensor/convert.h"
#include "tests/support/integer_random.h"

namespace odmoe {
namespace {

constexpr int64_t kKinds = 12;

// About normal, standard deviation near 1/64; a multiple of 2^-20.
float Weight(IntegerRandom& random) {
  int64_t sum = -4 * (1 << 15);
  for (int i = 0; i < 8; ++i) sum += random.Below(1 << 15);
  return std::ldexp(static_cast<float>(sum), -21);
}

float AnyFinite(IntegerRandom& random) {
  while (true) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
    if (std::isfinite(value)) return value;
  }
}

float ValueOfKind(int64_t kind, int64_t row, int64_t column, IntegerRandom& random) {
  const float weight = Weight(random);
  switch (kind) {
    case 0: return BF16ToF32(F32ToBF16(weight));
    case 1: return column == 5 * row ? std::ldexp(weight, 100) : weight;
    case 2: return random.Below(2) == 0 ? 0.0f : -0.0f;
    case 3: return std::ldexp(weight, -130);  // subnormal
    case 4: return 0.25f * static_cast<float>(random.Below(17) - 8);
    case 5: return 0.013f * static_cast<float>(column / 32 - 11);
    case 6: return -std::fabs(weight);
    case 7: return 1.0f + std::fabs(weight);
    case 8: return std::ldexp(weight, static_cast<int>(random.Below(80)) - 40);
    case 9: return AnyFinite(random);
    case 10: return random.Below(16) == 0 ? weight : 0.0f;
    default: return weight;
  }
}

}  // namespace

std::vector<float> EncodeRowsInput() {
  IntegerRandom random(2024);
  std::vector<float> values;
  values.reserve(kEncodeRows * kEncodeColumns);
  for (int64_t row = 0; row < kEncodeRows; ++row) {
    for (int64_t column = 0; column < kEncodeColumns; ++column) {
      // The last rows change kinds from 16 to 16 columns.
      const int64_t kind = row < 4 * kKinds ? row % (kKinds + 1) : (row + column / 16) % kKinds;
      values.push_back(ValueOfKind(kind, row, column, random));
    }
  }
  return values;
}

std::vector<float> EncodeRowsImportance() {
  IntegerRandom random(7);
  std::vector<float> importance;
  for (int64_t column = 0; column < kEncodeColumns; ++column) {
    const float weight = Weight(random);
    const bool zero = column / 16 % 5 == 3 || random.Below(6) == 0;
    importance.push_back(zero ? 0.0f : std::ldexp(weight * weight, 8));
  }
  return importance;
}

}  // namespace odmoe
