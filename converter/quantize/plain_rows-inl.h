// Blocks of 32 that need no search, in vectors along the row: q8_0, and q4_0 to q5_1 without
// importance. Also the test for numbers that are none.

#if defined(ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#undef ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#else
#define ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstring>

#include "converter/quantize/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

// Whether none of x[0, n) is NaN or infinite.
inline bool AllFinite(const float* x, int64_t n) {
  const LaneTag d;
  constexpr int64_t kStep = static_cast<int64_t>(kLanes);
  const Floats most = F(hwy::HighestValue<float>());
  Lanes fine = hn::Le(hn::Zero(d), most);
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    fine = hn::And(fine, hn::Le(hn::Abs(hn::LoadU(d, x + i)), most));
  }
  bool rest = true;
  for (; i < n; ++i) rest = rest && std::isfinite(x[i]);
  return rest && hn::AllTrue(d, fine);
}

inline void PutF16At(uint8_t* out, float value) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(out, &bits, sizeof(bits));
}

inline void EncodeQ8_0Blocks(const float* x, int64_t n, uint8_t* out) {
  constexpr int kElements = BlockQ8_0::kElements, kStep = static_cast<int>(kLanes);
  const LaneTag d;
  const hn::Rebind<int8_t, LaneIntTag> d8;
  for (; n > 0; n -= kElements, x += kElements, out += sizeof(BlockQ8_0)) {
    Floats largest = hn::Zero(d);
    for (int i = 0; i < kElements; i += kStep) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
    }
    const float scale = hn::GetLane(hn::MaxOfLanes(d, largest)) / 127.0f;
    const Floats inverse = F(scale != 0.0f ? 1.0f / scale : 0.0f);
    PutF16At(out, scale);
    for (int i = 0; i < kElements; i += kStep) {
      // Where the inverse overflowed, products are infinite or NaN and count as zero.
      const Ints code = RoundHalfAway(hn::Mul(hn::LoadU(d, x + i), inverse));
      hn::StoreU(hn::DemoteTo(d8, code), d8, reinterpret_cast<int8_t*>(out + 2) + i);
    }
  }
}

// Codes of a block, packed: nibbles as in block_formats.h, and of five bits the fifth apart.
inline void PackNibbles(const uint8_t* codes, uint8_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
  }
#else
  const hn::FixedTag<uint8_t, 16> d;
  const auto low = hn::And(hn::LoadU(d, codes), hn::Set(d, 15));
  hn::StoreU(hn::Or(low, hn::ShiftLeft<4>(hn::LoadU(d, codes + 16))), d, out);
#endif
}
inline void PackFifthBits(const uint8_t* codes, uint8_t* out) {
  uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= static_cast<uint32_t>(codes[j] >> 4) << j;
  std::memcpy(out, &bits, sizeof(bits));
}

// codes = trunc((x - origin) * inverse + half), at most `max_code`. The reference's conversion
// gives zero where the inverse overflowed.
HWY_INLINE void TruncatedCodes(const float* x, float origin, float inverse, float half,
                               int max_code, uint8_t* codes) {
  const hn::Rebind<uint8_t, LaneIntTag> d8;
  for (int i = 0; i < 32; i += static_cast<int>(kLanes)) {
    const Floats moved = hn::Sub(hn::LoadU(LaneTag(), x + i), F(origin));
    const Ints code = Truncate(hn::Add(hn::Mul(moved, F(inverse)), F(half)));
    hn::StoreU(hn::DemoteTo(d8, hn::Min(code, I(max_code))), d8, codes + i);
  }
}

struct Extremes {
  float least;
  float most;
};

// Of 32 finite values; which of two zeros is not told.
HWY_INLINE Extremes FindExtremes(const float* x) {
  const LaneTag d;
  Floats low = hn::LoadU(d, x), high = low;
  for (int i = static_cast<int>(kLanes); i < 32; i += static_cast<int>(kLanes)) {
    low = hn::Min(low, hn::LoadU(d, x + i));
    high = hn::Max(high, hn::LoadU(d, x + i));
  }
  return {hn::GetLane(hn::MinOfLanes(d, low)), hn::GetLane(hn::MaxOfLanes(d, high))};
}

// q4_0 and q5_0: d from the value of largest magnitude, the first of equals, which gets code 0.
template <int kMiddle>
void EncodeSymmetricBlocks(const float* x, int64_t n, uint8_t* out) {
  constexpr bool kFive = kMiddle == 16;
  for (; n > 0; n -= 32, x += 32, out += kFive ? 22 : 18) {
    const Extremes ends = FindExtremes(x);
    float largest = -ends.least < ends.most ? ends.most : ends.least;
    if (-ends.least == ends.most) {
      largest = *std::find_if(x, x + 31, [&](float v) { return std::fabs(v) == ends.most; });
    }
    // Of zeros, the reference's largest is the zero it began with.
    const float scale = (largest == 0.0f ? 0.0f : largest) / static_cast<float>(-kMiddle);
    uint8_t codes[32];
    TruncatedCodes(x, 0.0f, scale != 0.0f ? 1.0f / scale : 0.0f,
                   static_cast<float>(kMiddle) + 0.5f, 2 * kMiddle - 1, codes);
    PutF16At(out, scale);
    if (kFive) PackFifthBits(codes, out + 2);
    PackNibbles(codes, out + (kFive ? 6 : 2));
  }
}

// q4_1 and q5_1: from the least value up; of zeros of both signs, the first.
template <int kMaxCode>
void EncodeRangeBlocks(const float* x, int64_t n, uint8_t* out) {
  constexpr bool kFive = kMaxCode == 31;
  for (; n > 0; n -= 32, x += 32, out += kFive ? 24 : 20) {
    auto [least, most] = FindExtremes(x);
    if (least == 0.0f) least = *std::find(x, x + 31, 0.0f);
    const float scale = most == least ? 0.0f : (most - least) / static_cast<float>(kMaxCode);
    uint8_t codes[32];
    TruncatedCodes(x, least, scale != 0.0f ? 1.0f / scale : 0.0f, 0.5f, kMaxCode, codes);
    PutF16At(out, scale);
    PutF16At(out + 2, least);
    if (kFive) PackFifthBits(codes, out + 4);
    PackNibbles(codes, out + (kFive ? 8 : 4));
  }
}

using RowEncoder = void (*)(const float* x, int64_t n, uint8_t* out);

// nullptr: a format that searches.
inline RowEncoder FindRowEncoder(DType dtype, bool weighted) {
  if (dtype == DType::kQ8_0) return &EncodeQ8_0Blocks;
  if (weighted) return nullptr;
  switch (dtype) {
    case DType::kQ4_0: return &EncodeSymmetricBlocks<8>;
    case DType::kQ4_1: return &EncodeRangeBlocks<15>;
    case DType::kQ5_0: return &EncodeSymmetricBlocks<16>;
    case DType::kQ5_1: return &EncodeRangeBlocks<31>;
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
