// Blocks of 256 elements, a lane each: q2_K to q6_K. Layouts are described
// in services/core/tensor/decode_super_blocks.cc.

#if defined(ODMOE_QUANTIZE_SUPER_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_SUPER_BLOCKS_INL_H_
#undef ODMOE_QUANTIZE_SUPER_BLOCKS_INL_H_
#else
#define ODMOE_QUANTIZE_SUPER_BLOCKS_INL_H_
#endif

#include "converter/quantize/search-inl.h"
#include "services/core/tensor/block_formats.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

// Codes of a block, a byte each, until they are packed.
struct LaneCodes {
  HWY_ALIGN uint8_t bytes[kSuperBlock * kLanes];

  HWY_INLINE void Put(int i, Ints code) {
    const hn::Rebind<uint8_t, LaneIntTag> d8;
    const hn::RebindToUnsigned<LaneIntTag> du;
    hn::StoreU(hn::TruncateTo(d8, hn::BitCast(du, code)), d8, bytes + i * kLanes);
  }
  HWY_INLINE Ints Get(int i) const {
    const hn::Rebind<uint8_t, LaneIntTag> d8;
    return hn::PromoteTo(LaneIntTag(), hn::LoadU(d8, bytes + i * kLanes));
  }
  // Bits `shift` and `shift + 1`, four codes a byte, as TwoBits of the decoder takes them apart.
  HWY_INLINE void PackPairs(const LaneBlocks& blocks, int at, int shift) const {
    for (int m = 0; m < kSuperBlock / 4; ++m) {
      const int i = 128 * (m / 32) + m % 32;
      Ints packed = I(0);
      for (int q = 3; q >= 0; --q) {
        const Ints pair = hn::And(hn::ShiftRightSame(Get(i + 32 * q), shift), I(3));
        packed = hn::Or(hn::ShiftLeft<2>(packed), pair);
      }
      blocks.Put(at + m, packed);
    }
  }
  // Low nibbles of each 64.
  HWY_INLINE void PackNibbles(const LaneBlocks& blocks, int at) const {
    for (int m = 0; m < kSuperBlock / 2; ++m) {
      const int i = 64 * (m / 32) + m % 32;
      const Ints low = hn::And(Get(i), I(15)), high = hn::And(Get(i + 32), I(15));
      blocks.Put(at + m, hn::Or(low, hn::ShiftLeft<4>(high)));
    }
  }
};

// Codes of sub-block `s` with the scale and min as stored; where that scale is zero, the search's.
template <int kN>
HWY_INLINE void EncodeRange(const float* x, int s, const RangeFit& fit, Floats scale, Floats min,
                            int max_code, LaneCodes& codes) {
  const Lanes no_scale = hn::Eq(scale, F(0.0f));
  const bool some_none = !hn::AllFalse(LaneTag(), no_scale);
  for (int i = 0; i < kN; ++i) {
    const Floats xi = At(x, kN * s + i);
    Ints code = Clamp(RoundedInt(hn::Div(hn::Add(xi, min), scale)), 0, max_code);
    if (some_none) {
      const Ints kept =
          Clamp(RoundedInt(hn::Mul(fit.inverse, hn::Sub(xi, fit.origin))), 0, max_code);
      code = Select(no_scale, kept, code);
    }
    codes.Put(kN * s + i, code);
  }
}

// The scale and min of a block of scales and of mins, by the largest of each: f16 bits, and what
// the sub-blocks' are multiplied by to give their codes.
struct LargestScale {
  Ints f16;
  Floats to_code;
};
template <int kCount>
HWY_INLINE LargestScale ScaleByLargest(const Floats* x, float max_code) {
  Floats largest = F(0.0f);
  for (int i = 0; i < kCount; ++i) {
    largest = Select(hn::Gt(x[i], largest), x[i], largest);
  }
  const Lanes some = hn::Gt(largest, F(0.0f));
  return {ToF16(hn::Div(largest, F(max_code))),
          hn::IfThenElseZero(some, hn::Div(F(max_code), Select(some, largest, F(1.0f))))};
}

// The sub-blocks' fits of a block with scales and mins, and then these as codes: low bytes.
template <int kSubBlocks>
struct RangeFits {
  RangeFit fits[kSubBlocks];
  Floats weights[kSubBlocks];  // sums, with importance
  Ints d, dmin;                // f16 bits
  Ints scale_codes[kSubBlocks], min_codes[kSubBlocks];

  HWY_INLINE void EncodeScales(bool weighted, int max_code) {
    Floats scales[kSubBlocks], mins[kSubBlocks];
    for (int s = 0; s < kSubBlocks; ++s) {
      scales[s] = fits[s].scale;
      mins[s] = fits[s].min;
    }
    if (weighted) {
      d = ToF16(FitScales(scales, weights, kSubBlocks, max_code, scale_codes));
      dmin = ToF16(FitScales(mins, weights, kSubBlocks, max_code, min_codes));
      return;
    }
    const LargestScale scale = ScaleByLargest<kSubBlocks>(scales, static_cast<float>(max_code));
    const LargestScale min = ScaleByLargest<kSubBlocks>(mins, static_cast<float>(max_code));
    for (int s = 0; s < kSubBlocks; ++s) {
      scale_codes[s] = LowByte(RoundedInt(hn::Mul(scale.to_code, scales[s])));
      min_codes[s] = LowByte(RoundedInt(hn::Mul(min.to_code, mins[s])));
    }
    d = scale.f16;
    dmin = min.f16;
  }
};

inline void EncodeQ2_K(const LaneBlocks& blocks) {
  constexpr int kSubBlocks = 16, kN = 16, kMaxCode = 3, kMaxScale = 15;
  RangeFits<kSubBlocks> sub;
  HWY_ALIGN float w[kN * kLanes];
  const bool weighted = blocks.importance != nullptr;
  const Floats mean_square =
      weighted ? hn::Div(SumOfSquares(blocks.x, kSuperBlock), F(256.0f)) : F(0.0f);
  for (int s = 0; s < kSubBlocks; ++s) {
    const float* x = blocks.x + kN * s * kLanes;
    if (weighted) {
      WeighByImportance(blocks, kN * s, kN, mean_square, w);
      sub.weights[s] = SumOf(w, kN);
      sub.fits[s] = FitRange<kN, false>(x, w, kMaxCode, {-0.9f, 0.05f, 36});
    } else {
      for (int i = 0; i < kN; ++i) PutAt(w, i, hn::Abs(At(x, i)));
      sub.fits[s] = FitRange<kN, true>(x, w, kMaxCode, {-0.5f, 0.1f, 15});
    }
  }
  sub.EncodeScales(weighted, kMaxScale);
  LaneCodes codes;
  const Floats scale = FromF16(sub.d), min = FromF16(sub.dmin);
  for (int s = 0; s < kSubBlocks; ++s) {
    const Ints both = LowByte(hn::Or(sub.scale_codes[s], hn::ShiftLeft<4>(sub.min_codes[s])));
    blocks.Put(s, both);
    EncodeRange<kN>(blocks.x, s, sub.fits[s], hn::Mul(scale, ToFloat(hn::And(both, I(15)))),
                    hn::Mul(min, ToFloat(hn::ShiftRight<4>(both))), kMaxCode, codes);
  }
  codes.PackPairs(blocks, 16, 0);
  blocks.PutF16(80, sub.d);
  blocks.PutF16(82, sub.dmin);
}

// Scales and mins of eight sub-blocks as 12 bytes; see UnpackScaleAndMin.
struct PackedScales {
  Ints bytes[12];

  HWY_INLINE void Pack(const Ints* scales, const Ints* mins) {
    for (int j = 0; j < 4; ++j) {
      bytes[j] = LowByte(hn::Or(scales[j], hn::ShiftLeft<6>(hn::ShiftRight<4>(scales[j + 4]))));
      bytes[j + 4] = LowByte(hn::Or(mins[j], hn::ShiftLeft<6>(hn::ShiftRight<4>(mins[j + 4]))));
      bytes[j + 8] = LowByte(hn::Or(hn::And(scales[j + 4], I(15)),
                                    hn::ShiftLeft<4>(hn::And(mins[j + 4], I(15)))));
    }
  }
  HWY_INLINE Ints ScaleOf(int j) const {
    if (j < 4) return hn::And(bytes[j], I(63));
    return hn::Or(hn::And(bytes[j + 4], I(15)),
                  hn::ShiftLeft<4>(hn::ShiftRight<6>(bytes[j - 4])));
  }
  HWY_INLINE Ints MinOf(int j) const {
    if (j < 4) return hn::And(bytes[j + 4], I(63));
    return hn::Or(hn::ShiftRight<4>(bytes[j + 4]),
                  hn::ShiftLeft<4>(hn::ShiftRight<6>(bytes[j])));
  }
};

// q4_K and q5_K up to the packing of codes: writes d, dmin and the scales.
template <int kMaxCode>
void EncodeEightRanges(const LaneBlocks& blocks, const RangeSteps& steps, LaneCodes& codes) {
  constexpr int kSubBlocks = 8, kN = 32, kMaxScale = 63;
  RangeFits<kSubBlocks> sub;
  HWY_ALIGN float w[kN * kLanes];
  const bool weighted = blocks.importance != nullptr;
  const Floats mean_square =
      weighted ? hn::Div(hn::Mul(F(2.0f), SumOfSquares(blocks.x, kSuperBlock)), F(256.0f))
               : F(0.0f);
  for (int s = 0; s < kSubBlocks; ++s) {
    const float* x = blocks.x + kN * s * kLanes;
    if (weighted) {
      WeighByImportance(blocks, kN * s, kN, mean_square, w);
      sub.weights[s] = SumOf(w, kN);
    } else {
      const Floats root = hn::Sqrt(hn::Div(SumOfSquares(x, kN), F(32.0f)));
      for (int i = 0; i < kN; ++i) PutAt(w, i, hn::Add(root, hn::Abs(At(x, i))));
    }
    sub.fits[s] = FitRange<kN, false>(x, w, kMaxCode,
                                      weighted ? RangeSteps{-0.9f, 0.05f, 36} : steps);
  }
  sub.EncodeScales(weighted, kMaxScale);
  // Codes that wrapped below zero stay as they are in q4_K with importance, as in the reference.
  if (!weighted || kMaxCode == 31) {
    for (int s = 0; s < kSubBlocks; ++s) {
      sub.scale_codes[s] = hn::Min(I(kMaxScale), sub.scale_codes[s]);
      sub.min_codes[s] = hn::Min(I(kMaxScale), sub.min_codes[s]);
    }
  }
  PackedScales packed;
  packed.Pack(sub.scale_codes, sub.min_codes);
  blocks.PutF16(0, sub.d);
  blocks.PutF16(2, sub.dmin);
  for (int b = 0; b < 12; ++b) blocks.Put(4 + b, packed.bytes[b]);
  const Floats scale = FromF16(sub.d), min = FromF16(sub.dmin);
  for (int s = 0; s < kSubBlocks; ++s) {
    EncodeRange<kN>(blocks.x, s, sub.fits[s], hn::Mul(scale, ToFloat(packed.ScaleOf(s))),
                    hn::Mul(min, ToFloat(packed.MinOf(s))), kMaxCode, codes);
  }
}

inline void EncodeQ4_K(const LaneBlocks& blocks) {
  LaneCodes codes;
  EncodeEightRanges<15>(blocks, {-1.0f, 0.1f, 20}, codes);
  codes.PackNibbles(blocks, 16);
}

inline void EncodeQ5_K(const LaneBlocks& blocks) {
  LaneCodes codes;
  EncodeEightRanges<31>(blocks, {-0.5f, 0.1f, 15}, codes);
  codes.PackNibbles(blocks, 48);
  for (int m = 0; m < 32; ++m) {
    Ints high = I(0);
    for (int s = 7; s >= 0; --s) {
      high = hn::Or(hn::ShiftLeft<1>(high), hn::ShiftRight<4>(codes.Get(32 * s + m)));
    }
    blocks.Put(16 + m, high);
  }
}

// Codes of sub-block `s` of 16 by the scale as stored, moved up by max_code; where that scale is
// zero, the codes stay.
HWY_INLINE void EncodeSymmetric(const float* x, int s, Floats scale, int max_code,
                                LaneCodes& codes) {
  const Lanes no_scale = hn::Eq(scale, F(0.0f));
  for (int i = 16 * s; i < 16 * s + 16; ++i) {
    const Ints code = Clamp(RoundedInt(hn::Div(At(x, i), scale)), -max_code, max_code - 1);
    codes.Put(i, Select(no_scale, codes.Get(i), hn::Add(code, I(max_code))));
  }
}

// The scale of largest magnitude among 16, the first of equals.
HWY_INLINE LargestValue LargestOfScales(const Floats* scales) {
  LargestValue largest = {F(0.0f), F(0.0f)};
  for (int s = 0; s < 16; ++s) {
    const Lanes more = hn::Gt(hn::Abs(scales[s]), largest.magnitude);
    largest.magnitude = Select(more, hn::Abs(scales[s]), largest.magnitude);
    largest.value = Select(more, scales[s], largest.value);
  }
  return largest;
}

// Scales of q3_K's 16 sub-blocks: f16 bits of their common scale, and six-bit codes.
struct SixBitScales {
  Ints d;
  Ints codes[16];

  // Low nibbles two a byte, then the high pairs.
  HWY_INLINE void Pack(const LaneBlocks& blocks, int at) const {
    for (int j = 0; j < 8; ++j) {
      blocks.Put(at + j, hn::Or(hn::And(codes[j], I(15)),
                                hn::ShiftLeft<4>(hn::And(codes[j + 8], I(15)))));
    }
    for (int j = 0; j < 4; ++j) {
      Ints pairs = I(0);
      for (int q = 3; q >= 0; --q) {
        pairs = hn::Or(hn::ShiftLeft<2>(pairs), hn::ShiftRight<4>(codes[j + 4 * q]));
      }
      blocks.Put(at + 8 + j, pairs);
    }
  }
};

// q3_K's search by importance; `codes` receives the search's codes.
inline SixBitScales FitQ3_K(const LaneBlocks& blocks, LaneCodes& codes) {
  constexpr int kSubBlocks = 16, kN = 16, kMaxCode = 4, kMaxScale = 32;
  HWY_ALIGN float w[kN * kLanes];
  HWY_ALIGN float sums[kSubBlocks * kLanes];
  HWY_ALIGN float scales[kSubBlocks * kLanes];
  const Floats mean_square =
      hn::Div(hn::Mul(F(2.0f), SumOfSquares(blocks.x, kSuperBlock)), F(256.0f));
  for (int s = 0; s < kSubBlocks; ++s) {
    const float* x = blocks.x + kN * s * kLanes;
    WeighByImportance(blocks, kN * s, kN, mean_square, w);
    PutAt(sums, s, SumOf(w, kN));
    const SymmetricFit fit = FitSymmetric<kN, true>(x, w, kMaxCode);
    PutAt(scales, s, fit.scale);
    for (int i = 0; i < kN; ++i) codes.Put(kN * s + i, fit.CodeOf(At(x, i), kMaxCode));
  }
  const SymmetricFit fit = FitSymmetric<kSubBlocks, false>(scales, sums, kMaxScale);
  SixBitScales result;
  for (int s = 0; s < kSubBlocks; ++s) result.codes[s] = fit.CodeOf(At(scales, s), kMaxScale);
  result.d = ToF16(fit.scale);
  return result;
}

// The same without importance.
inline SixBitScales SweepQ3_K(const LaneBlocks& blocks, LaneCodes& codes) {
  constexpr int kSubBlocks = 16, kN = 16, kMaxCode = 4;
  Floats scales[kSubBlocks];
  for (int s = 0; s < kSubBlocks; ++s) {
    Ints of_sub_block[kN];
    scales[s] = SweepSymmetric<kN>(blocks.x + kN * s * kLanes, kMaxCode, of_sub_block);
    for (int i = 0; i < kN; ++i) codes.Put(kN * s + i, of_sub_block[i]);
  }
  const LargestValue largest = LargestOfScales(scales);
  const Lanes some = hn::Gt(largest.magnitude, F(0.0f));
  const Floats inverse = hn::Div(F(-32.0f), Select(some, largest.value, F(1.0f)));
  SixBitScales result;
  for (int s = 0; s < kSubBlocks; ++s) {
    const Ints code = SignedByte(RoundedInt(hn::Mul(inverse, scales[s])));
    result.codes[s] = Select(some, hn::Add(Clamp(code, -32, 31), I(32)), I(0));
  }
  result.d = ToF16(hn::IfThenElseZero(some, hn::Div(F(1.0f), inverse)));
  return result;
}

inline void EncodeQ3_K(const LaneBlocks& blocks) {
  LaneCodes codes;
  const SixBitScales scales =
      blocks.importance != nullptr ? FitQ3_K(blocks, codes) : SweepQ3_K(blocks, codes);
  const Floats block_scale = FromF16(scales.d);
  for (int s = 0; s < 16; ++s) {
    const Floats scale = hn::Mul(block_scale, ToFloat(hn::Sub(scales.codes[s], I(32))));
    EncodeSymmetric(blocks.x, s, scale, 4, codes);
  }
  for (int m = 0; m < 32; ++m) {
    Ints high = I(0);
    for (int p = 7; p >= 0; --p) {
      high = hn::Or(hn::ShiftLeft<1>(high), hn::ShiftRight<2>(codes.Get(32 * p + m)));
    }
    blocks.Put(m, high);
  }
  codes.PackPairs(blocks, 32, 0);
  scales.Pack(blocks, 96);
  blocks.PutF16(108, scales.d);
}

inline void EncodeQ6_K(const LaneBlocks& blocks) {
  constexpr int kSubBlocks = 16, kN = 16, kMaxCode = 32, kBytes = 210;
  Floats scales[kSubBlocks];
  LaneCodes codes;
  HWY_ALIGN float squares[kN * kLanes];
  for (int s = 0; s < kSubBlocks; ++s) {
    const float* x = blocks.x + kN * s * kLanes;
    const float* w = squares;
    if (blocks.importance != nullptr) {
      w = blocks.importance + kN * s * kLanes;
    } else {
      for (int i = 0; i < kN; ++i) PutAt(squares, i, hn::Mul(At(x, i), At(x, i)));
    }
    const SymmetricFit fit = FitSymmetric<kN, true>(x, w, kMaxCode);
    scales[s] = fit.scale;
    for (int i = 0; i < kN; ++i) codes.Put(kN * s + i, fit.CodeOf(At(x, i), kMaxCode));
  }
  const LargestValue largest = LargestOfScales(scales);
  const Lanes nothing = hn::Lt(largest.magnitude, F(kNoSignal));
  const Floats inverse = hn::Div(F(-128.0f), Select(nothing, F(1.0f), largest.value));
  const Ints d = ToF16(hn::Div(F(1.0f), inverse));
  const Floats block_scale = FromF16(d);
  for (int s = 0; s < kSubBlocks; ++s) {
    const Ints code =
        SignedByte(hn::Min(I(127), RoundedInt(hn::Mul(inverse, scales[s]))));
    blocks.Put(192 + s, code);
    EncodeSymmetric(blocks.x, s, hn::Mul(block_scale, ToFloat(code)), kMaxCode, codes);
  }
  for (int m = 0; m < 128; ++m) {
    const int i = 128 * (m / 64) + m % 64;
    blocks.Put(m, hn::Or(hn::And(codes.Get(i), I(15)),
                         hn::ShiftLeft<4>(hn::And(codes.Get(i + 64), I(15)))));
  }
  codes.PackPairs(blocks, 128, 4);
  blocks.PutF16(208, d);
  if (hn::AllFalse(LaneTag(), nothing)) return;
  for (int b = 0; b < kBytes; ++b) {
    const hn::Rebind<uint8_t, LaneIntTag> d8;
    const Ints byte = hn::PromoteTo(LaneIntTag(), hn::LoadU(d8, blocks.image + b * kLanes));
    blocks.Put(b, Select(nothing, I(0), byte));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_SUPER_BLOCKS_INL_H_
