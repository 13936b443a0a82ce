// Blocks of 32 elements, a lane each: q4_0 to q5_1 by importance, iq4_nl and mxfp4. Layouts are
// described in services/core/tensor/decode_small_blocks.cc.

#if defined(ODMOE_QUANTIZE_SMALL_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_SMALL_BLOCKS_INL_H_
#undef ODMOE_QUANTIZE_SMALL_BLOCKS_INL_H_
#else
#define ODMOE_QUANTIZE_SMALL_BLOCKS_INL_H_
#endif

#include <cmath>

#include "converter/quantize/search-inl.h"
#include "services/core/tensor/block_formats.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

inline constexpr int kSmallBlock = 32;

// Nibbles at byte `at`: element j low, j + 16 high; with `fifth_bits_at` >= 0 a word of fifth bits.
HWY_INLINE void PutCodes(const LaneBlocks& blocks, const Ints* codes, int fifth_bits_at, int at) {
  for (int j = 0; j < 16; ++j) {
    const Ints low = hn::And(codes[j], I(15)), high = hn::And(codes[j + 16], I(15));
    blocks.Put(at + j, hn::Or(low, hn::ShiftLeft<4>(high)));
  }
  if (fifth_bits_at < 0) return;
  for (int byte = 0; byte < 4; ++byte) {
    Ints bits = I(0);
    for (int j = 7; j >= 0; --j) {
      const Ints bit = hn::And(hn::ShiftRight<4>(codes[8 * byte + j]), I(1));
      bits = hn::Or(hn::ShiftLeft<1>(bits), bit);
    }
    blocks.Put(fifth_bits_at + byte, bits);
  }
}

HWY_INLINE Floats InverseOrZero(Floats d) {
  const Lanes zero = hn::Eq(d, F(0.0f));
  return hn::IfThenZeroElse(zero, hn::Div(F(1.0f), Select(zero, F(1.0f), d)));
}

// q4_0 and q5_0 by importance.
template <int kMaxCode>
void FitSymmetricBlock(const LaneBlocks& blocks) {
  HWY_ALIGN float w[kSmallBlock * kLanes];
  WeighByImportance(blocks, 0, kSmallBlock, At(blocks.row_mean_square, 0), w);
  const SymmetricFit fit = FitSymmetric<kSmallBlock, true>(blocks.x, w, kMaxCode);
  Ints codes[kSmallBlock];
  for (int i = 0; i < kSmallBlock; ++i) codes[i] = fit.CodeOf(At(blocks.x, i), kMaxCode);
  blocks.PutF16(0, ToF16(fit.scale));
  if (kMaxCode == 8) {
    PutCodes(blocks, codes, -1, 2);
  } else {
    PutCodes(blocks, codes, 2, 6);
  }
}

// q4_1 and q5_1 by importance.
template <int kMaxCode>
void FitRangeBlock(const LaneBlocks& blocks) {
  HWY_ALIGN float w[kSmallBlock * kLanes];
  WeighByImportance(blocks, 0, kSmallBlock, At(blocks.row_mean_square, 0), w);
  const RangeFit fit = FitRange<kSmallBlock, false>(blocks.x, w, kMaxCode, {-0.9f, 0.05f, 36});
  Ints codes[kSmallBlock];
  for (int i = 0; i < kSmallBlock; ++i) {
    const Floats moved = hn::Mul(fit.inverse, hn::Sub(At(blocks.x, i), fit.origin));
    codes[i] = Clamp(RoundedInt(moved), 0, kMaxCode);
  }
  blocks.PutF16(0, ToF16(fit.scale));
  blocks.PutF16(2, ToF16(hn::Neg(fit.min)));
  if (kMaxCode == 15) {
    PutCodes(blocks, codes, -1, 4);
  } else {
    PutCodes(blocks, codes, 4, 8);
  }
}

// The nearest of kIQ4Values, the higher of two as near (so NaN takes the last): as a value and as a
// code. Middles of neighbours and differences to them are exact in float.
HWY_INLINE Floats NearestIQ4(Floats v) {
  Floats nearest = F(kIQ4Values[0]);
  for (int k = 0; k < 15; ++k) {
    const float middle = 0.5f * static_cast<float>(kIQ4Values[k] + kIQ4Values[k + 1]);
    nearest = Select(hn::Lt(v, F(middle)), nearest, F(kIQ4Values[k + 1]));
  }
  return nearest;
}
HWY_INLINE Ints NearestIQ4Code(Floats v) {
  Ints code = I(0);
  for (int k = 0; k < 15; ++k) {
    const float middle = 0.5f * static_cast<float>(kIQ4Values[k] + kIQ4Values[k + 1]);
    code = Select(hn::Lt(v, F(middle)), code, I(k + 1));
  }
  return code;
}

inline void EncodeIQ4_NL(const LaneBlocks& blocks) {
  constexpr int kReach = 7;
  HWY_ALIGN float w[kSmallBlock * kLanes];
  if (blocks.importance != nullptr) {
    const Floats mean_square = hn::Mul(SumOfSquares(blocks.x, kSmallBlock), F(2.0f / kSmallBlock));
    WeighByImportance(blocks, 0, kSmallBlock, mean_square, w);
  } else {
    for (int i = 0; i < kSmallBlock; ++i) PutAt(w, i, hn::Mul(At(blocks.x, i), At(blocks.x, i)));
  }
  const LargestValue largest = FindLargest<kSmallBlock>(blocks.x);
  const Lanes zero = hn::Lt(largest.magnitude, F(kNoSignal));
  const Floats divisor = Select(zero, F(1.0f), largest.value);
  const float first = static_cast<float>(kIQ4Values[0]);
  Floats scale = F(0.0f), best = F(0.0f);
  for (int attempt = -kReach - 1; attempt <= kReach; ++attempt) {
    const bool is_first = attempt < -kReach;
    const Floats inverse = is_first
                               ? hn::Div(F(1.0f), hn::Div(hn::Neg(divisor), F(first)))
                               : hn::Div(F(static_cast<float>(attempt) + first), divisor);
    Floats sum_qx = F(0.0f), sum_q2 = F(0.0f);
    for (int i = 0; i < kSmallBlock; ++i) {
      const Floats x = At(blocks.x, i);
      const Floats q = NearestIQ4(hn::Mul(inverse, x));
      const Floats wq = hn::Mul(At(w, i), q);
      sum_qx = hn::Add(sum_qx, hn::Mul(wq, x));
      sum_q2 = hn::Add(sum_q2, hn::Mul(wq, q));
    }
    const Lanes some = hn::Gt(sum_q2, F(0.0f));
    const Floats fitted = hn::Div(sum_qx, sum_q2);
    const Lanes better = hn::And(some, hn::Gt(hn::Mul(sum_qx, sum_qx), hn::Mul(best, sum_q2)));
    scale = is_first ? hn::IfThenElseZero(some, fitted) : Select(better, fitted, scale);
    best = is_first ? hn::Mul(scale, sum_qx) : Select(better, hn::Mul(fitted, sum_qx), best);
  }
  scale = hn::IfThenZeroElse(zero, scale);
  const Floats inverse = InverseOrZero(scale);
  Ints codes[kSmallBlock];
  for (int i = 0; i < kSmallBlock; ++i) {
    codes[i] = NearestIQ4Code(hn::Mul(inverse, At(blocks.x, i)));
  }
  blocks.PutF16(0, ToF16(scale));
  PutCodes(blocks, codes, -1, 2);
}

// The shared exponent, and half its power of two, of blocks whose largest magnitudes are given. The
// logarithm is the library's in float, which rounds up to the next power close below it.
struct SharedExponents {
  Ints exponent;
  Floats half_scale;

  explicit SharedExponents(Floats largest) {
    alignas(64) float magnitudes[kLanes], scales[kLanes];
    alignas(64) int32_t exponents[kLanes];
    hn::Store(largest, LaneTag(), magnitudes);
    for (size_t i = 0; i < kLanes; ++i) {
      // The largest code, 6, is 1.5 * 2^2. Exponents below zero wrap, as in the reference.
      const int wide = magnitudes[i] > 0.0f
                           ? static_cast<int>(std::floor(std::log2(magnitudes[i])) - 2.0f + 127.0f)
                           : 0;
      exponents[i] = static_cast<uint8_t>(wide);
      scales[i] = HalfE8M0(static_cast<uint8_t>(wide));
    }
    exponent = hn::Load(LaneIntTag(), exponents);
    half_scale = hn::Load(LaneTag(), scales);
  }
};

inline void EncodeMXFP4(const LaneBlocks& blocks) {
  const SharedExponents shared(FindLargest<kSmallBlock>(blocks.x).magnitude);
  Floats values[16];
  for (int k = 0; k < 16; ++k) values[k] = hn::Mul(F(kFP4DoubledValues[k]), shared.half_scale);
  Ints codes[kSmallBlock];
  for (int i = 0; i < kSmallBlock; ++i) {
    const Floats x = At(blocks.x, i);
    Ints code = I(0);
    Floats error = hn::Abs(hn::Sub(values[0], x));
    for (int k = 1; k < 16; ++k) {
      const Floats other = hn::Abs(hn::Sub(values[k], x));
      const Lanes less = hn::Lt(other, error);
      code = Select(less, I(k), code);
      error = Select(less, other, error);
    }
    codes[i] = code;
  }
  blocks.Put(0, shared.exponent);
  PutCodes(blocks, codes, -1, 1);
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_SMALL_BLOCKS_INL_H_
