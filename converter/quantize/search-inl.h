// Searches for the scales that encode a sub-block with the least weighted error, a lane each. Each
// follows the reference's search step by step; the names tell what it fits.

#if defined(ODMOE_QUANTIZE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_QUANTIZE_SEARCH_INL_H_
#undef ODMOE_QUANTIZE_SEARCH_INL_H_
#else
#define ODMOE_QUANTIZE_SEARCH_INL_H_
#endif

#include "converter/quantize/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

// Below this a sub-block counts as zeros.
inline constexpr float kNoSignal = 1e-15f;

// x of a sub-block as scale * code - min, codes 0 to `max_code`.
struct RangeFit {
  Floats scale;
  Floats min;  // at least zero, or -0
  // What made the codes of the best fit: nearest(inverse * (x - origin)), clamped.
  Floats inverse;
  Floats origin;
};

// Multipliers tried: (first + i * step + max_code) / (max - min), for i in 0 .. count.
struct RangeSteps {
  float first;
  float step;
  int count;
};

struct CodeSums {
  Floats l, l2, xl;  // sums of w * code, w * code^2, w * code * x
};

template <int kN, bool kSmall>
HWY_INLINE CodeSums MakeCodes(const float* x, const float* w, Floats inverse, Floats origin,
                              int max_code, float* codes) {
  CodeSums sums = {F(0.0f), F(0.0f), F(0.0f)};
  for (int i = 0; i < kN; ++i) {
    const Floats xi = At(x, i);
    const Floats code =
        NearestClamped<kSmall>(hn::Mul(inverse, hn::Sub(xi, origin)), 0, max_code);
    PutAt(codes, i, code);
    const Floats wl = hn::Mul(At(w, i), code);
    sums.l = hn::Add(sums.l, wl);
    sums.l2 = hn::Add(sums.l2, hn::Mul(wl, code));
    sums.xl = hn::Add(sums.xl, hn::Mul(wl, xi));
  }
  return sums;
}

// Sum of w * |e| (kAbsolute) or w * e^2 of the errors e.
template <int kN, bool kAbsolute>
HWY_INLINE Floats RangeError(const float* x, const float* w, const float* codes, Floats scale,
                             Floats min) {
  Floats error = F(0.0f);
  for (int i = 0; i < kN; ++i) {
    const Floats e = hn::Sub(hn::Add(hn::Mul(scale, At(codes, i)), min), At(x, i));
    error = hn::Add(error, hn::Mul(At(w, i), kAbsolute ? hn::Abs(e) : hn::Mul(e, e)));
  }
  return error;
}

template <int kN, bool kAbsolute>
RangeFit FitRange(const float* x, const float* w, int max_code, const RangeSteps& steps) {
  HWY_ALIGN float codes[kN * kLanes];
  Floats low = At(x, 0), high = low, sum_w = At(w, 0), sum_x = hn::Mul(sum_w, low);
  for (int i = 1; i < kN; ++i) {
    const Floats xi = At(x, i);
    low = Select(hn::Lt(xi, low), xi, low);
    high = Select(hn::Gt(xi, high), xi, high);
    sum_w = hn::Add(sum_w, At(w, i));
    sum_x = hn::Add(sum_x, hn::Mul(At(w, i), xi));
  }
  Floats min = Select(hn::Gt(low, F(0.0f)), F(0.0f), low);
  const Lanes flat = hn::Eq(high, min);

  RangeFit fit;
  Floats best_error = F(0.0f);
  for (int step = -1; step <= steps.count; ++step) {
    const float reach = step < 0 ? static_cast<float>(max_code)
                                 : steps.first + steps.step * static_cast<float>(step) +
                                       static_cast<float>(max_code);
    const Floats inverse =
        hn::IfThenZeroElse(flat, hn::Div(F(reach), hn::Sub(high, min)));
    // Products are monotonous in x, so the ends tell whether all are small.
    const Floats at_low = hn::Abs(hn::Mul(inverse, hn::Sub(low, min)));
    const Floats at_high = hn::Abs(hn::Mul(inverse, hn::Sub(high, min)));
    const bool small = hn::AllTrue(
        LaneTag(), hn::And(hn::Lt(at_low, F(4e6f)), hn::Lt(at_high, F(4e6f))));
    const CodeSums sums = small ? MakeCodes<kN, true>(x, w, inverse, min, max_code, codes)
                                : MakeCodes<kN, false>(x, w, inverse, min, max_code, codes);
    if (step < 0) {
      fit = {hn::Div(F(1.0f), inverse), min, inverse, min};
      best_error = RangeError<kN, kAbsolute>(x, w, codes, fit.scale, min);
      continue;
    }
    const Floats determinant =
        hn::Sub(hn::Mul(sum_w, sums.l2), hn::Mul(sums.l, sums.l));
    Floats scale = hn::Div(hn::Sub(hn::Mul(sum_w, sums.xl), hn::Mul(sum_x, sums.l)), determinant);
    Floats new_min =
        hn::Div(hn::Sub(hn::Mul(sums.l2, sum_x), hn::Mul(sums.l, sums.xl)), determinant);
    const Lanes positive = hn::Gt(new_min, F(0.0f));
    new_min = hn::IfThenZeroElse(positive, new_min);
    scale = Select(positive, hn::Div(sums.xl, sums.l2), scale);
    const Floats error = RangeError<kN, kAbsolute>(x, w, codes, scale, new_min);
    const Lanes better = hn::AndNot(
        flat, hn::And(hn::Gt(determinant, F(0.0f)), hn::Lt(error, best_error)));
    best_error = Select(better, error, best_error);
    fit.scale = Select(better, scale, fit.scale);
    fit.inverse = Select(better, inverse, fit.inverse);
    fit.origin = Select(better, min, fit.origin);
    min = Select(better, new_min, min);
  }
  fit.scale = hn::IfThenZeroElse(flat, fit.scale);
  fit.min = hn::Neg(min);
  return fit;
}

// x of a sub-block as scale * code, codes -max_code to max_code - 1.
struct SymmetricFit {
  Floats scale;
  Floats inverse;  // codes: nearest(inverse * x), clamped; none where `zero`
  Lanes zero;

  // The codes moved up to begin at zero; where the sub-block counts as zeros, 0.
  HWY_INLINE Ints CodeOf(Floats x, int max_code) const {
    const Ints code = Clamp(RoundedInt(hn::Mul(inverse, x)), -max_code, max_code - 1);
    return Select(zero, I(0), hn::Add(code, I(max_code)));
  }
};

struct LargestValue {
  Floats magnitude;
  Floats value;  // the first of that magnitude
};

template <int kN>
HWY_INLINE LargestValue FindLargest(const float* x) {
  LargestValue largest = {F(0.0f), F(0.0f)};
  for (int i = 0; i < kN; ++i) {
    const Floats xi = At(x, i);
    const Lanes more = hn::Gt(hn::Abs(xi), largest.magnitude);
    largest.magnitude = Select(more, hn::Abs(xi), largest.magnitude);
    largest.value = Select(more, xi, largest.value);
  }
  return largest;
}

// kSmall: x is known to be finite.
template <int kN, bool kSmall>
SymmetricFit FitSymmetric(const float* x, const float* w, int max_code) {
  const LargestValue largest = FindLargest<kN>(x);
  HWY_ALIGN float wx[kN * kLanes];
  for (int i = 0; i < kN; ++i) PutAt(wx, i, hn::Mul(At(w, i), At(x, i)));
  SymmetricFit fit;
  fit.zero = hn::Lt(largest.magnitude, F(kNoSignal));
  const Floats divisor = Select(fit.zero, F(1.0f), largest.value);
  Floats best = F(0.0f);
  // The plain scale first, then its neighbours.
  for (int attempt = 0; attempt < 19; ++attempt) {
    const int step = attempt == 0 ? 0 : attempt < 10 ? attempt - 10 : attempt - 9;
    const float reach = static_cast<float>(max_code) + 0.1f * static_cast<float>(step);
    const Floats inverse = hn::Div(F(-reach), divisor);
    Floats sum_lx = F(0.0f), sum_l2 = F(0.0f);
    for (int i = 0; i < kN; ++i) {
      const Floats code =
          NearestClamped<kSmall>(hn::Mul(inverse, At(x, i)), -max_code, max_code - 1);
      sum_lx = hn::Add(sum_lx, hn::Mul(At(wx, i), code));
      sum_l2 = hn::Add(sum_l2, hn::Mul(hn::Mul(At(w, i), code), code));
    }
    const Floats scale = hn::Div(sum_lx, sum_l2);
    if (attempt == 0) {
      fit.scale = hn::IfThenZeroElse(hn::Eq(sum_l2, F(0.0f)), scale);
      fit.inverse = inverse;
      best = hn::Mul(fit.scale, sum_lx);
      continue;
    }
    const Lanes better = hn::And(hn::Gt(sum_l2, F(0.0f)),
                                 hn::Gt(hn::Mul(sum_lx, sum_lx), hn::Mul(best, sum_l2)));
    fit.scale = Select(better, scale, fit.scale);
    fit.inverse = Select(better, inverse, fit.inverse);
    best = Select(better, hn::Mul(scale, sum_lx), best);
  }
  fit.scale = hn::IfThenZeroElse(fit.zero, fit.scale);
  return fit;
}

// A sweep's state: sums of w * x * code and w * code^2.
struct SweepSums {
  Floats lx, l2;
};

// Moves one code to where it is best given the others, if that improves the fit; returns the lanes
// that changed. The sum of squares must be positive before the code is put back, or (kAfter) after.
template <bool kAfter>
HWY_INLINE Lanes MoveCode(Floats w, Floats x, int low, int high, Ints& code, SweepSums& sums) {
  const Floats wx = hn::Mul(w, x);
  const Floats old_code = ToFloat(code);
  const Floats lx = hn::Sub(sums.lx, hn::Mul(wx, old_code));
  const Floats l2 = hn::Sub(sums.l2, hn::Mul(hn::Mul(w, old_code), old_code));
  Lanes moves = hn::Gt(lx, F(0.0f));
  if (!kAfter) moves = hn::And(moves, hn::Gt(l2, F(0.0f)));
  const Ints new_code =
      hn::Min(I(high), hn::Max(I(low), RoundedInt(hn::Div(hn::Mul(x, l2), lx))));
  const Floats nc = ToFloat(new_code);
  const Floats new_lx = hn::Add(lx, hn::Mul(wx, nc));
  const Floats new_l2 = hn::Add(l2, hn::Mul(hn::Mul(w, nc), nc));
  if (kAfter) moves = hn::And(moves, hn::Gt(new_l2, F(0.0f)));
  moves = hn::And(moves, hn::Gt(hn::Mul(hn::Mul(new_lx, new_lx), sums.l2),
                                hn::Mul(hn::Mul(sums.lx, sums.lx), new_l2)));
  moves = hn::AndNot(hn::RebindMask(LaneTag(), hn::Eq(new_code, code)), moves);
  code = Select(moves, new_code, code);
  sums.lx = Select(moves, new_lx, sums.lx);
  sums.l2 = Select(moves, new_l2, sums.l2);
  return moves;
}

inline constexpr int kSweeps = 5;

// Symmetric codes as above, by moving one code at a time with weights x^2; `codes` [kN] receives
// them, from zero on. Returns the scale.
template <int kN>
Floats SweepSymmetric(const float* x, int max_code, Ints* codes) {
  const LargestValue largest = FindLargest<kN>(x);
  const Lanes zero = hn::Lt(largest.magnitude, F(kNoSignal));
  const Floats inverse =
      hn::Div(F(static_cast<float>(-max_code)), Select(zero, F(1.0f), largest.value));
  SweepSums sums = {F(0.0f), F(0.0f)};
  for (int i = 0; i < kN; ++i) {
    const Floats xi = At(x, i), w = hn::Mul(xi, xi);
    codes[i] = Clamp(RoundedInt(hn::Mul(inverse, xi)), -max_code, max_code - 1);
    const Floats code = ToFloat(codes[i]);
    sums.lx = hn::Add(sums.lx, hn::Mul(hn::Mul(w, xi), code));
    sums.l2 = hn::Add(sums.l2, hn::Mul(hn::Mul(w, code), code));
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool changed = false;
    for (int i = 0; i < kN; ++i) {
      const Floats xi = At(x, i);
      const Lanes moved =
          MoveCode<true>(hn::Mul(xi, xi), xi, -max_code, max_code - 1, codes[i], sums);
      changed |= !hn::AllFalse(LaneTag(), hn::AndNot(zero, moved));
    }
    if (!changed) break;
  }
  for (int i = 0; i < kN; ++i) codes[i] = Select(zero, I(0), hn::Add(codes[i], I(max_code)));
  return hn::IfThenElseZero(hn::AndNot(zero, hn::Gt(sums.l2, F(0.0f))),
                            hn::Div(sums.lx, sums.l2));
}

// Scales of a block's sub-blocks, `count` of them, as scale * code with codes 0 to max_code, by
// weights `w`. The scale; `codes` receives low bytes.
inline Floats FitScales(const Floats* x, const Floats* w, int count, int max_code, Ints* codes) {
  Floats max = F(0.0f);
  for (int i = 0; i < count; ++i) max = Select(hn::Gt(max, x[i]), max, x[i]);
  const Lanes zero = hn::Lt(max, F(kNoSignal));
  const Floats divisor = Select(zero, F(1.0f), max);
  Floats inverse = hn::Div(F(static_cast<float>(max_code)), divisor);
  Floats best = F(0.0f);
  for (int attempt = 0; attempt < 9; ++attempt) {
    const int step = attempt == 0 ? 0 : attempt < 5 ? attempt - 5 : attempt - 4;
    const Floats tried =
        step == 0 ? inverse
                  : hn::Div(F(0.1f * static_cast<float>(step) + static_cast<float>(max_code)),
                            divisor);
    const Floats scale = hn::Div(F(1.0f), tried);
    Floats error = F(0.0f);
    for (int i = 0; i < count; ++i) {
      const Ints nearest = RoundedInt(hn::Mul(tried, x[i]));
      const Ints code = step == 0 ? LowByte(nearest) : hn::Min(I(max_code), nearest);
      const Floats e = hn::Sub(x[i], hn::Mul(scale, ToFloat(code)));
      error = hn::Add(error, hn::Mul(hn::Mul(w[i], e), e));
    }
    const Lanes better = hn::Lt(error, best);
    best = step == 0 ? error : Select(better, error, best);
    inverse = step == 0 ? inverse : Select(better, tried, inverse);
  }
  SweepSums sums = {F(0.0f), F(0.0f)};
  for (int i = 0; i < count; ++i) {
    const Ints nearest = hn::Min(I(max_code), RoundedInt(hn::Mul(inverse, x[i])));
    const Floats code = ToFloat(nearest);
    sums.lx = hn::Add(sums.lx, hn::Mul(hn::Mul(w[i], x[i]), code));
    sums.l2 = hn::Add(sums.l2, hn::Mul(hn::Mul(w[i], code), code));
    codes[i] = LowByte(nearest);
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool changed = false;
    for (int i = 0; i < count; ++i) {
      const Lanes moved = MoveCode<false>(w[i], x[i], INT32_MIN, max_code, codes[i], sums);
      codes[i] = LowByte(codes[i]);
      changed |= !hn::AllFalse(LaneTag(), hn::AndNot(zero, moved));
    }
    if (!changed) break;
  }
  for (int i = 0; i < count; ++i) codes[i] = Select(zero, I(0), codes[i]);
  return hn::IfThenElseZero(hn::AndNot(zero, hn::Gt(sums.l2, F(0.0f))),
                            hn::Div(sums.lx, sums.l2));
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_QUANTIZE_SEARCH_INL_H_
