// Vectors in which every lane is a block of its own, for the current Highway target.
//
// The reference quantizers are sequences of float operations, each rounded by itself, and their
// sums depend on the order. A lane does exactly that sequence for its block, so that the bytes are
// the reference's whatever the width: nothing is reassociated and nothing fused.

#if defined(ODMOE_QUANTIZE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_LANES_INL_H_
#undef ODMOE_QUANTIZE_LANES_INL_H_
#else
#define ODMOE_QUANTIZE_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "services/core/tensor/convert.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using LaneTag = hn::CappedTag<float, 16>;
using LaneIntTag = hn::Rebind<int32_t, LaneTag>;
using Floats = hn::Vec<LaneTag>;
using Ints = hn::Vec<LaneIntTag>;
using Lanes = hn::Mask<LaneTag>;

inline constexpr size_t kLanes = hn::MaxLanes(LaneTag());

HWY_INLINE Floats F(float value) { return hn::Set(LaneTag(), value); }
HWY_INLINE Ints I(int32_t value) { return hn::Set(LaneIntTag(), value); }

// Arrays of vectors lie in memory as float[n][kLanes], aligned.
HWY_INLINE Floats At(const float* x, int i) { return hn::Load(LaneTag(), x + i * kLanes); }
HWY_INLINE void PutAt(float* x, int i, Floats v) { hn::Store(v, LaneTag(), x + i * kLanes); }

HWY_INLINE Floats ToFloat(Ints v) { return hn::ConvertTo(LaneTag(), v); }
HWY_INLINE Ints Select(Lanes mask, Ints yes, Ints no) {
  return hn::IfThenElse(hn::RebindMask(LaneIntTag(), mask), yes, no);
}
HWY_INLINE Floats Select(Lanes mask, Floats yes, Floats no) {
  return hn::IfThenElse(mask, yes, no);
}

// What adding 1.5 * 2^23 leaves in the mantissa: the nearest integer, halves to even, where |v| <
// 2^22, a remainder of it beyond, and zero of a NaN. The reference rounds so; what it makes of
// numbers out of range shows in the bytes.
HWY_INLINE Ints RoundedInt(Floats v) {
  const Ints bits = hn::BitCast(LaneIntTag(), hn::Add(v, F(12582912.0f)));
  return hn::Sub(hn::And(bits, I(0x007fffff)), I(0x00400000));
}
HWY_INLINE Ints Clamp(Ints v, int low, int high) { return hn::Max(I(low), hn::Min(I(high), v)); }

// The same as a float, cheaper, for |v| < 2^22 only.
HWY_INLINE Floats NearestOfSmall(Floats v) {
  return hn::Sub(hn::Add(v, F(12582912.0f)), F(12582912.0f));
}
// RoundedInt clamped, as a float. `kSmall`: |v| < 2^22 is known.
template <bool kSmall>
HWY_INLINE Floats NearestClamped(Floats v, int low, int high) {
  if constexpr (kSmall) {
    return hn::Max(F(static_cast<float>(low)),
                   hn::Min(F(static_cast<float>(high)), NearestOfSmall(v)));
  }
  return ToFloat(Clamp(RoundedInt(v), low, high));
}

// Low byte of v as an unsigned and as a signed number: what a cast to uint8_t and int8_t leaves.
HWY_INLINE Ints LowByte(Ints v) { return hn::And(v, I(0xff)); }
HWY_INLINE Ints SignedByte(Ints v) { return hn::ShiftRight<24>(hn::ShiftLeft<24>(v)); }

// Conversion towards zero; zero for NaN and what no int32 holds. (The reference's machine makes
// -2^31 of these, and only the low byte is used.)
HWY_INLINE Ints Truncate(Floats v) {
  const Lanes fits = hn::Lt(hn::Abs(v), F(2147483648.0f));
  return hn::ConvertTo(LaneIntTag(), hn::IfThenElseZero(fits, v));
}
// Nearest integer, halves away from zero, of |v| < 2^22. The largest float below a half carries
// exactly the fractions from a half on over the next integer.
HWY_INLINE Ints RoundHalfAway(Floats v) {
  return Truncate(hn::Add(v, hn::CopySign(F(0.49999997f), v)));
}

// A lane at a time: one number a block, and the scalar functions define the values.
inline Ints ToF16(Floats v) {
  alignas(64) float values[kLanes];
  alignas(64) int32_t bits[kLanes];
  hn::Store(v, LaneTag(), values);
  for (size_t i = 0; i < kLanes; ++i) bits[i] = F32ToF16(values[i]);
  return hn::Load(LaneIntTag(), bits);
}
inline Floats FromF16(Ints v) {
  alignas(64) float values[kLanes];
  alignas(64) int32_t bits[kLanes];
  hn::Store(v, LaneIntTag(), bits);
  for (size_t i = 0; i < kLanes; ++i) values[i] = F16ToF32(static_cast<uint16_t>(bits[i]));
  return hn::Load(LaneTag(), values);
}

// Blocks being encoded, a lane each. `Put` takes the low byte of each lane.
struct LaneBlocks {
  const float* x;           // [elements][kLanes]
  const float* importance;  // the same, or nullptr
  const float* row_mean_square;  // [kLanes], with importance: mean of x^2 over the block's row
  uint8_t* image;           // [block bytes][kLanes]

  HWY_INLINE void Put(int byte, Ints v) const {
    const hn::Rebind<uint8_t, LaneIntTag> d8;
    const hn::RebindToUnsigned<LaneIntTag> du;
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, v)), d8, image + byte * kLanes);
  }
  HWY_INLINE void PutF16(int byte, Ints bits) const {
    Put(byte, bits);
    Put(byte + 1, hn::ShiftRight<8>(bits));
  }
};

// Weights of errors: importance * sqrt(mean_square + x^2).
HWY_INLINE void WeighByImportance(const LaneBlocks& blocks, int first, int count,
                                  Floats mean_square, float* w) {
  for (int i = 0; i < count; ++i) {
    const Floats x = At(blocks.x, first + i);
    PutAt(w, i, hn::Mul(At(blocks.importance, first + i),
                        hn::Sqrt(hn::Add(mean_square, hn::Mul(x, x)))));
  }
}

inline Floats SumOf(const float* x, int count) {
  Floats sum = F(0.0f);
  for (int i = 0; i < count; ++i) sum = hn::Add(sum, At(x, i));
  return sum;
}

inline Floats SumOfSquares(const float* x, int count) {
  Floats sum = F(0.0f);
  for (int i = 0; i < count; ++i) sum = hn::Add(sum, hn::Mul(At(x, i), At(x, i)));
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_LANES_INL_H_
