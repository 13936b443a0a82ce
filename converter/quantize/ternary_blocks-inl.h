// Blocks of 256 elements, a lane each: tq1_0 and tq2_0. Layouts are described in
// services/core/tensor/decode_super_blocks.cc.

#if defined(ODMOE_QUANTIZE_TERNARY_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_TERNARY_BLOCKS_INL_H_
#undef ODMOE_QUANTIZE_TERNARY_BLOCKS_INL_H_
#else
#define ODMOE_QUANTIZE_TERNARY_BLOCKS_INL_H_
#endif

#include "converter/quantize/super_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

// Codes 0 to 2 of nearest(x / d) in { -1, 0, 1 }, d the largest magnitude. Where 1 / d overflows,
// the reference's machine makes zeros of all.
struct Ternary {
  Floats inverse;
  Ints d;

  explicit Ternary(const float* x) {
    Floats largest = F(0.0f);
    for (int i = 0; i < kSuperBlock; ++i) {
      largest = hn::Max(largest, hn::Abs(At(x, i)));
    }
    const Lanes some = hn::Gt(largest, F(0.0f));
    inverse = hn::IfThenElseZero(some, hn::Div(F(1.0f), Select(some, largest, F(1.0f))));
    inverse = hn::IfThenElseZero(hn::Le(inverse, F(hwy::HighestValue<float>())), inverse);
    d = ToF16(largest);
  }
  HWY_INLINE Ints CodeOf(Floats x) const {
    return hn::Add(RoundHalfAway(hn::Mul(x, inverse)), I(1));
  }
};

// `digits` codes, `stride` apart from `first`, as a fraction of 243 in 256ths, rounded up. Four
// digits fill the first four of five.
HWY_INLINE Ints PackTrits(const LaneBlocks& blocks, const Ternary& ternary, int first, int stride,
                          int digits) {
  Ints number = I(0);
  for (int n = 0; n < digits; ++n) {
    const Ints code = ternary.CodeOf(At(blocks.x, first + n * stride));
    number = hn::Add(hn::Add(hn::ShiftLeft<1>(number), number), code);
  }
  if (digits == 4) number = hn::Add(hn::ShiftLeft<1>(number), number);
  // (256 * number + 242) / 243, as checked below.
  const Ints scaled = hn::Add(hn::ShiftLeft<8>(number), I(242));
  return hn::ShiftRight<23>(hn::Mul(scaled, I(34522)));
}

constexpr bool DividesBy243() {
  for (int number = 0; number < 243; ++number) {
    const int scaled = 256 * number + 242;
    if ((scaled * 34522) >> 23 != scaled / 243) return false;
  }
  return true;
}
static_assert(DividesBy243());

inline void EncodeTQ1_0(const LaneBlocks& blocks) {
  const Ternary ternary(blocks.x);
  for (int m = 0; m < 32; ++m) blocks.Put(m, PackTrits(blocks, ternary, m, 32, 5));
  for (int m = 0; m < 16; ++m) blocks.Put(32 + m, PackTrits(blocks, ternary, 160 + m, 16, 5));
  for (int m = 0; m < 4; ++m) blocks.Put(48 + m, PackTrits(blocks, ternary, 240 + m, 4, 4));
  blocks.PutF16(52, ternary.d);
}

inline void EncodeTQ2_0(const LaneBlocks& blocks) {
  const Ternary ternary(blocks.x);
  LaneCodes codes;
  for (int i = 0; i < kSuperBlock; ++i) codes.Put(i, ternary.CodeOf(At(blocks.x, i)));
  codes.PackPairs(blocks, 0, 0);
  blocks.PutF16(64, ternary.d);
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_TERNARY_BLOCKS_INL_H_
