// Vector operations between the matrix products, for the current Highway target. Included once per
// target by simd.cc.

#if defined(ODMOE_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_KERNELS_VECTOR_INL_H_
#undef ODMOE_KERNELS_VECTOR_INL_H_
#else
#define ODMOE_KERNELS_VECTOR_INL_H_
#endif

#include <cmath>
#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "services/core/kernels/dot-inl.h"
#include "services/core/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr size_t kMaxLanes = HWY_MAX_BYTES / sizeof(float);

// Calls body(vector, i) over x, the last vector filled up with `filler`; what body returns is
// stored to out. A lane's result does not depend on where in the vector it lies.
template <class Body>
void Map(const float* x, int64_t n, float filler, float* out, const Body& body) {
  const FloatTag d;
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(body(hn::LoadU(d, x + i), i), d, out + i);
  if (i == n) return;
  alignas(64) float padded[kMaxLanes];
  for (size_t k = 0; k < kMaxLanes; ++k) padded[k] = filler;
  std::memcpy(padded, x + i, (n - i) * sizeof(float));
  hn::StoreU(body(hn::LoadU(d, padded), i), d, padded);
  std::memcpy(out + i, padded, (n - i) * sizeof(float));
}

// Highway's Exp is defined up to 104, and exp(89) overflows anyway; of a NaN it makes a zero, which
// would hide corrupt weights.
inline FloatVec SafeExp(FloatVec x) {
  const FloatTag d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, hn::Min(x, hn::Set(d, 104.0f))));
}

inline FloatVec SigmoidOf(FloatVec x) {
  const FloatTag d;
  const FloatVec one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, SafeExp(hn::Neg(x))));
}

inline void QuantizeQ8(const float* x, int64_t n, BlockQ8Activation* q) {
  constexpr int kElements = BlockQ8Activation::kElements;
  // Smaller, and 127 / max would leave the range of float; such activations are zero in effect.
  constexpr float kSmallest = 1e-30f;
  const hn::CappedTag<float, kElements> d;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int64_t lanes = hn::Lanes(d);
  for (int64_t b = 0; b < n / kElements; ++b, x += kElements) {
    auto largest = hn::Zero(d);
    for (int64_t i = 0; i < kElements; i += lanes) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
    }
    const float max = hn::GetLane(hn::MaxOfLanes(d, largest));
    const bool zero = !(max >= kSmallest);
    q[b].d = zero ? 0.0f : max / 127.0f;
    const auto inverse = hn::Set(d, zero ? 0.0f : 127.0f / max);
    for (int64_t i = 0; i < kElements; i += lanes) {
      const auto scaled = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
      hn::StoreU(hn::DemoteTo(d8, scaled), d8, q[b].q + i);
    }
  }
}

inline void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const std::byte* as_row = reinterpret_cast<const std::byte*>(x);
  float squares = 0.0f;
  DotTile<float, 1>(as_row, n, &as_row, &squares, 1);
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

inline void SiluGate(const float* gate, const float* up, int64_t n, float* out) {
  const FloatTag d;
  const int64_t lanes = hn::Lanes(d);
  Map(gate, n, 0.0f, out, [&](FloatVec g, int64_t i) HWY_ATTR {
    FloatVec u;
    if (i + lanes <= n) {
      u = hn::LoadU(d, up + i);
    } else {
      alignas(64) float padded[kMaxLanes] = {};
      std::memcpy(padded, up + i, (n - i) * sizeof(float));
      u = hn::LoadU(d, padded);
    }
    return hn::Mul(hn::Mul(g, SigmoidOf(g)), u);
  });
}

inline void Sigmoid(float* x, int64_t n) {
  Map(x, n, 0.0f, x, [](FloatVec v, int64_t) HWY_ATTR { return SigmoidOf(v); });
}

inline void Softmax(float* x, float scale, int64_t n) {
  const FloatTag d;
  float max = x[0];
  for (int64_t i = 1; i < n; ++i) max = x[i] > max ? x[i] : max;
  const FloatVec factor = hn::Set(d, scale);
  const FloatVec shift = hn::Set(d, max * scale);
  Map(x, n, max, x, [&](FloatVec v, int64_t) HWY_ATTR {
    return SafeExp(hn::Sub(hn::Mul(v, factor), shift));
  });
  // Double: a context of a million terms still sums to full float accuracy.
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const float inverse = static_cast<float>(1.0 / sum);
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

inline float SoftmaxStrip(float* x, float scale, int64_t n, float* max, float* sum) {
  const FloatTag d;
  float largest = x[0];
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  largest *= scale;
  if (!(largest > *max)) largest = *max;
  const FloatVec factor = hn::Set(d, scale);
  const FloatVec shift = hn::Set(d, largest);
  Map(x, n, 0.0f, x, [&](FloatVec v, int64_t) HWY_ATTR {
    return SafeExp(hn::Sub(hn::Mul(v, factor), shift));
  });
  float strip_sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) strip_sum += x[i];
  const float correction = std::exp(*max - largest);
  *sum = *sum * correction + strip_sum;
  *max = largest;
  return correction;
}

inline void Scale(float a, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] *= a;
}

inline void ScaledAdd(float a, const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += a * x[i];
}

inline void WeightedRows(const float* weights, int64_t rows, const float* x, int64_t stride,
                         int64_t n, float* out) {
  // Columns a strip at a time, so that the sums stay in registers over all rows.
  const FloatTag d;
  const int64_t lanes = hn::Lanes(d);
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) {
    FloatVec sums[4];
    for (int k = 0; k < 4; ++k) sums[k] = hn::LoadU(d, out + c + k * lanes);
    for (int64_t r = 0; r < rows; ++r) {
      const FloatVec w = hn::Set(d, weights[r]);
      const float* row = x + r * stride + c;
      for (int k = 0; k < 4; ++k) {
        sums[k] = hn::MulAdd(w, hn::LoadU(d, row + k * lanes), sums[k]);
      }
    }
    for (int k = 0; k < 4; ++k) hn::StoreU(sums[k], d, out + c + k * lanes);
  }
  for (; c + lanes <= n; c += lanes) {
    FloatVec sum = hn::LoadU(d, out + c);
    for (int64_t r = 0; r < rows; ++r) {
      sum = hn::MulAdd(hn::Set(d, weights[r]), hn::LoadU(d, x + r * stride + c), sum);
    }
    hn::StoreU(sum, d, out + c);
  }
  for (; c < n; ++c) {
    for (int64_t r = 0; r < rows; ++r) out[c] += weights[r] * x[r * stride + c];
  }
}

inline void Rope(const float* table, int64_t n, float* x) {
  for (int64_t i = 0; i < n; i += 2) {
    const float a = x[i];
    const float b = x[i + 1];
    x[i] = a * table[i] - b * table[i + 1];
    x[i + 1] = a * table[i + 1] + b * table[i];
  }
}

inline void RopeHalves(const float* table, int64_t n, float* x) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    x[i] = a * table[2 * i] - b * table[2 * i + 1];
    x[i + half] = a * table[2 * i + 1] + b * table[2 * i];
  }
}

inline void RoundTo8BitsRow(int64_t n, float* x) {
  constexpr float kSmallest = 1e-5f;  // of the definition
  float largest = kSmallest;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = x[i] < 0.0f ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  const FloatTag d;
  const float scale = 127.0f / largest;
  const FloatVec factor = hn::Set(d, scale);
  Map(x, n, 0.0f, x, [&](FloatVec v, int64_t) HWY_ATTR {
    return hn::Div(hn::Round(hn::Mul(v, factor)), factor);
  });
}

inline void ReluSquaredGate(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    // Not the larger of gate and 0, which would make a zero of a NaN.
    const float positive = gate[i] < 0.0f ? 0.0f : gate[i];
    out[i] = positive * positive * up[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_KERNELS_VECTOR_INL_H_
