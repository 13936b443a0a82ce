#include "services/core/tensor/check_values.h"

#include <algorithm>
#include <cstring>

namespace odmoe {
namespace {

constexpr uint16_t kF16Exponent = 0x7c00;
constexpr uint16_t kBF16Exponent = 0x7f80;
constexpr uint32_t kF32Exponent = 0x7f800000;
constexpr uint64_t kF64Exponent = 0x7ff0000000000000;

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Plain numbers whose exponent bits are all set. Whole runs first, without a branch a number, so
// that a disk's speed is kept.
template <typename T>
std::optional<uint64_t> FindExponent(absl::Span<const std::byte> data, T exponent) {
  constexpr size_t kRun = 4096;
  const size_t count = data.size() / sizeof(T);
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t end = std::min(count, begin + kRun);
    unsigned bad = 0;
    for (size_t i = begin; i < end; ++i) {
      bad |= (Load<T>(data.data() + i * sizeof(T)) & exponent) == exponent ? 1u : 0u;
    }
    for (size_t i = begin; bad != 0 && i < end; ++i) {
      if ((Load<T>(data.data() + i * sizeof(T)) & exponent) == exponent) return i;
    }
  }
  return std::nullopt;
}

// Where a block has its f16 scales; -1: no second one.
struct F16Scales {
  DType dtype;
  int first;
  int second;
};

constexpr F16Scales kF16Scales[] = {
    {DType::kQ4_0, 0, -1},     {DType::kQ4_1, 0, 2},      {DType::kQ5_0, 0, -1},
    {DType::kQ5_1, 0, 2},      {DType::kQ8_0, 0, -1},     {DType::kQ8_1, 0, 2},
    {DType::kQ2_K, 80, 82},    {DType::kQ3_K, 108, -1},   {DType::kQ4_K, 0, 2},
    {DType::kQ5_K, 0, 2},      {DType::kQ6_K, 208, -1},   {DType::kIQ2_XXS, 0, -1},
    {DType::kIQ2_XS, 0, -1},   {DType::kIQ3_XXS, 0, -1},  {DType::kIQ1_S, 0, -1},
    {DType::kIQ4_NL, 0, -1},   {DType::kIQ3_S, 0, -1},    {DType::kIQ2_S, 0, -1},
    {DType::kIQ4_XS, 0, -1},   {DType::kTQ1_0, 52, -1},   {DType::kTQ2_0, 64, -1},
    {DType::kQ1_0, 0, -1},     {DType::kQ2_0, 0, -1},
};

template <typename IsBad>
std::optional<uint64_t> FindBlock(absl::Span<const std::byte> data, size_t block_bytes,
                                  IsBad is_bad) {
  const size_t count = data.size() / block_bytes;
  for (size_t i = 0; i < count; ++i) {
    if (is_bad(data.data() + i * block_bytes)) return i;
  }
  return std::nullopt;
}

bool IsBadF16(const std::byte* at) {
  return (Load<uint16_t>(at) & kF16Exponent) == kF16Exponent;
}

// iq1_m has its scale's four nibbles in the high bits of the four words of its other scales.
bool IsBadIq1M(const std::byte* block) {
  constexpr size_t kScalesAt = 48;
  uint16_t words[4];
  std::memcpy(words, block + kScalesAt, sizeof(words));
  const unsigned scale = (words[0] >> 12) | ((words[1] >> 8) & 0x00f0u) |
                         ((words[2] >> 4) & 0x0f00u) | (words[3] & 0xf000u);
  return (scale & kF16Exponent) == kF16Exponent;
}

}  // namespace

std::optional<uint64_t> FindNotFinite(DType dtype, absl::Span<const std::byte> data) {
  const size_t block_bytes = Info(dtype).block_bytes;
  switch (dtype) {
    case DType::kF32:
      return FindExponent<uint32_t>(data, kF32Exponent);
    case DType::kF64:
      return FindExponent<uint64_t>(data, kF64Exponent);
    case DType::kF16:
      return FindExponent<uint16_t>(data, kF16Exponent);
    case DType::kBF16:
      return FindExponent<uint16_t>(data, kBF16Exponent);
    case DType::kQ8_K:
      return FindBlock(data, block_bytes, [](const std::byte* block) {
        return (Load<uint32_t>(block) & kF32Exponent) == kF32Exponent;
      });
    case DType::kMXFP4:
      return FindBlock(data, block_bytes,
                       [](const std::byte* block) { return *block == std::byte{0xff}; });
    case DType::kIQ1_M:
      return FindBlock(data, block_bytes, IsBadIq1M);
    default:
      break;
  }
  for (const F16Scales& scales : kF16Scales) {
    if (scales.dtype != dtype) continue;
    return FindBlock(data, block_bytes, [&](const std::byte* block) {
      return IsBadF16(block + scales.first) ||
             (scales.second >= 0 && IsBadF16(block + scales.second));
    });
  }
  return std::nullopt;
}

}  // namespace odmoe
