// Rows in formats that need no search: q8_0, f16 and bf16, in vectors along the row; and the test
// for numbers that are none.

#if defined(ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#undef ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#else
#define ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
#endif

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
    const uint16_t bits = F32ToF16(scale);
    std::memcpy(out, &bits, sizeof(bits));
    for (int i = 0; i < kElements; i += kStep) {
      // Where the inverse overflowed, products are infinite or NaN and count as zero.
      const Ints code = RoundHalfAway(hn::Mul(hn::LoadU(d, x + i), inverse));
      hn::StoreU(hn::DemoteTo(d8, code), d8, reinterpret_cast<int8_t*>(out + sizeof(bits)) + i);
    }
  }
}

inline void EncodeF16(const float* x, int64_t n, uint8_t* out) {
  int64_t i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  // These have an instruction that rounds as F32ToF16 does.
  const hn::Rebind<hwy::float16_t, LaneTag> d16;
  for (; i + static_cast<int64_t>(kLanes) <= n; i += kLanes) {
    HWY_ALIGN hwy::float16_t halves[kLanes];
    hn::Store(hn::DemoteTo(d16, hn::LoadU(LaneTag(), x + i)), d16, halves);
    std::memcpy(out + 2 * i, halves, sizeof(halves));
  }
#endif
  for (; i < n; ++i) {
    const uint16_t bits = F32ToF16(x[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

inline void EncodeBF16(const float* x, int64_t n, uint8_t* out) {
  const hn::RebindToUnsigned<LaneIntTag> du;
  const hn::Rebind<uint16_t, LaneIntTag> d16;
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= n; i += kLanes) {
    const auto bits = hn::BitCast(du, hn::LoadU(LaneTag(), x + i));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fff)), odd);
    HWY_ALIGN uint16_t halves[kLanes];
    hn::Store(hn::TruncateTo(d16, hn::ShiftRight<16>(rounded)), d16, halves);
    std::memcpy(out + 2 * i, halves, sizeof(halves));
  }
  for (; i < n; ++i) {
    const uint16_t bits = F32ToBF16(x[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_PLAIN_ROWS_INL_H_
