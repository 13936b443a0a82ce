// Dot products of stored weights with activations, one a format, for the current Highway target.
// Included once per target by simd.cc; no include guard of the usual kind for that reason.

#if defined(ODMOE_KERNELS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ODMOE_KERNELS_DOT_INL_H_
#undef ODMOE_KERNELS_DOT_INL_H_
#else
#define ODMOE_KERNELS_DOT_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "services/core/tensor/block_formats.h"
#include "services/core/tensor/convert.h"
#include "services/core/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// Four running sums hide the latency of a fused multiply-add (4 cycles, two a cycle, half of it
// taken by loads); a token tile multiplies them, so its width follows the number of registers.
inline constexpr size_t kSums = 4;
inline constexpr size_t kTokenTile = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// A format whose elements are plain numbers: loads them and widens to float.
template <typename Stored>
struct WideningLoad {
  static constexpr size_t kBytes = sizeof(Stored);
  static FloatVec Load(const std::byte* row, int64_t i) {
    const hn::Rebind<Stored, FloatTag> narrow;
    return hn::PromoteTo(FloatTag(),
                         hn::LoadU(narrow, reinterpret_cast<const Stored*>(row + i * kBytes)));
  }
};
template <>
struct WideningLoad<float> {
  static constexpr size_t kBytes = sizeof(float);
  static FloatVec Load(const std::byte* row, int64_t i) {
    return hn::LoadU(FloatTag(), reinterpret_cast<const float*>(row + i * kBytes));
  }
};

// kTokens dot products with one row. The order of additions is that of kTokens = 1.
template <typename Stored, size_t kTokens>
void DotTile(const std::byte* row, int64_t columns, const std::byte* const* x, float* out,
             int64_t out_stride) {
  using Weights = WideningLoad<Stored>;
  const FloatTag d;
  const int64_t lanes = hn::Lanes(d);
  FloatVec sums[kTokens][kSums];
  const float* tokens[kTokens];
  for (size_t t = 0; t < kTokens; ++t) {
    tokens[t] = reinterpret_cast<const float*>(x[t]);
    for (size_t k = 0; k < kSums; ++k) sums[t][k] = hn::Zero(d);
  }

  int64_t i = 0;
  for (; i + static_cast<int64_t>(kSums) * lanes <= columns; i += kSums * lanes) {
    for (size_t k = 0; k < kSums; ++k) {
      const int64_t at = i + static_cast<int64_t>(k) * lanes;
      const FloatVec w = Weights::Load(row, at);
      for (size_t t = 0; t < kTokens; ++t) {
        sums[t][k] = hn::MulAdd(w, hn::LoadU(d, tokens[t] + at), sums[t][k]);
      }
    }
  }
  for (; i + lanes <= columns; i += lanes) {
    const FloatVec w = Weights::Load(row, i);
    for (size_t t = 0; t < kTokens; ++t) {
      sums[t][0] = hn::MulAdd(w, hn::LoadU(d, tokens[t] + i), sums[t][0]);
    }
  }
  if (i < columns) {
    // Copied out because a full vector would read past the row, perhaps past the mapping.
    alignas(64) std::byte padded_weights[HWY_MAX_BYTES] = {};
    alignas(64) float padded[HWY_MAX_BYTES / sizeof(float)] = {};
    const size_t rest = static_cast<size_t>(columns - i);
    std::memcpy(padded_weights, row + i * Weights::kBytes, rest * Weights::kBytes);
    const FloatVec w = Weights::Load(padded_weights, 0);
    for (size_t t = 0; t < kTokens; ++t) {
      std::memcpy(padded, tokens[t] + i, rest * sizeof(float));
      sums[t][0] = hn::MulAdd(w, hn::LoadU(d, padded), sums[t][0]);
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    const FloatVec sum = hn::Add(hn::Add(sums[t][0], sums[t][1]), hn::Add(sums[t][2], sums[t][3]));
    out[static_cast<int64_t>(t) * out_stride] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

template <typename Stored>
void DotWidening(const std::byte* row, int64_t columns, const std::byte* const* x, int64_t tokens,
                 float* out, int64_t out_stride) {
  constexpr int64_t kTile = kTokenTile;
  int64_t t = 0;
  for (; t + kTile <= tokens; t += kTile) {
    DotTile<Stored, kTokenTile>(row, columns, x + t, out + t * out_stride, out_stride);
  }
  for (; t < tokens; ++t) {
    DotTile<Stored, 1>(row, columns, x + t, out + t * out_stride, out_stride);
  }
}

// The f16 scale a Q8_0 block starts with.
inline float BlockScale(const std::byte* block) {
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> half;
  return hn::GetLane(
      hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(block))));
}

#if HWY_TARGET == HWY_SCALAR

template <size_t kTokens>
void DotTileQ8_0(const std::byte* row, int64_t columns, const std::byte* const* x, float* out,
                 int64_t out_stride) {
  for (size_t t = 0; t < kTokens; ++t) {
    float sum = 0.0f;
    for (int64_t b = 0; b < columns / BlockQ8_0::kElements; ++b) {
      const std::byte* block = row + b * sizeof(BlockQ8_0);
      const int8_t* weights = reinterpret_cast<const int8_t*>(block + sizeof(uint16_t));
      const auto& a = reinterpret_cast<const BlockQ8Activation*>(x[t])[b];
      int32_t products = 0;
      for (int i = 0; i < BlockQ8_0::kElements; ++i) products += weights[i] * a.q[i];
      sum += static_cast<float>(products) * (BlockScale(block) * a.d);
    }
    out[static_cast<int64_t>(t) * out_stride] = sum;
  }
}

#else

// A block of 32 products fits the widest vector of 16-bit lanes we ask for, so it is 1, 2 or 4
// vectors; their integer sums are exact, and each block adds one product to every float lane.
using WideTag = hn::CappedTag<int16_t, BlockQ8_0::kElements>;
using NarrowTag = hn::Rebind<int8_t, WideTag>;
using SumTag = hn::RepartitionToWide<WideTag>;
using ScaledTag = hn::Rebind<float, SumTag>;
inline constexpr size_t kVectorsPerBlock = BlockQ8_0::kElements / hn::MaxLanes(WideTag());

inline hn::Vec<WideTag> LoadWide(const int8_t* q, size_t vector) {
  return hn::PromoteTo(WideTag(), hn::LoadU(NarrowTag(), q + vector * hn::MaxLanes(WideTag())));
}

template <size_t kTokens>
void DotTileQ8_0(const std::byte* row, int64_t columns, const std::byte* const* x, float* out,
                 int64_t out_stride) {
  const ScaledTag df;
  const SumTag di;
  hn::Vec<ScaledTag> sums[kTokens];
  for (size_t t = 0; t < kTokens; ++t) sums[t] = hn::Zero(df);

  const int64_t blocks = columns / BlockQ8_0::kElements;
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* block = row + b * sizeof(BlockQ8_0);
    const float scale = BlockScale(block);
    const int8_t* weights = reinterpret_cast<const int8_t*>(block + sizeof(uint16_t));
    hn::Vec<WideTag> w[kVectorsPerBlock];
    for (size_t v = 0; v < kVectorsPerBlock; ++v) w[v] = LoadWide(weights, v);
    for (size_t t = 0; t < kTokens; ++t) {
      const auto& a = reinterpret_cast<const BlockQ8Activation*>(x[t])[b];
      hn::Vec<SumTag> low = hn::Zero(di);
      hn::Vec<SumTag> high = hn::Zero(di);
      for (size_t v = 0; v < kVectorsPerBlock; ++v) {
        low = hn::ReorderWidenMulAccumulate(di, w[v], LoadWide(a.q, v), low, high);
      }
      const auto products = hn::ConvertTo(df, hn::Add(low, high));
      sums[t] = hn::MulAdd(products, hn::Set(df, scale * a.d), sums[t]);
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    out[static_cast<int64_t>(t) * out_stride] = hn::GetLane(hn::SumOfLanes(df, sums[t]));
  }
}

#endif

inline void DotQ8_0(const std::byte* row, int64_t columns, const std::byte* const* x,
                    int64_t tokens, float* out, int64_t out_stride) {
  constexpr int64_t kTile = 4;
  int64_t t = 0;
  for (; t + kTile <= tokens; t += kTile) {
    DotTileQ8_0<kTile>(row, columns, x + t, out + t * out_stride, out_stride);
  }
  for (; t < tokens; ++t) {
    DotTileQ8_0<1>(row, columns, x + t, out + t * out_stride, out_stride);
  }
}

// Any block format that core/tensor decodes: a strip of weights is decoded to floats and multiplied
// as those, strip after strip, so that the order of additions depends on the length alone. A strip
// is whole blocks of every format.
inline void DotDecoded(DType dtype, const std::byte* row, int64_t columns,
                       const std::byte* const* x, int64_t tokens, float* out, int64_t out_stride) {
  constexpr int64_t kStrip = kSuperBlock;
  constexpr int64_t kTokens = 8;  // that share a decoded strip; MatMul brings no more
  const BlockDecoder decode = FindBlockDecoder(dtype);
  const DTypeInfo& info = Info(dtype);
  alignas(64) float weights[kStrip];
  for (int64_t t = 0; t < tokens; t += kTokens) {
    const int64_t count = HWY_MIN(kTokens, tokens - t);
    const auto* block = reinterpret_cast<const uint8_t*>(row);
    float sums[kTokens] = {};
    for (int64_t i = 0; i < columns; i += kStrip) {
      const int64_t length = HWY_MIN(kStrip, columns - i);
      for (int64_t k = 0; k < length; k += info.block_elements, block += info.block_bytes) {
        decode(block, weights + k);
      }
      const std::byte* strips[kTokens];
      for (int64_t k = 0; k < count; ++k) strips[k] = x[t + k] + i * sizeof(float);
      float parts[kTokens];
      DotWidening<float>(reinterpret_cast<const std::byte*>(weights), length, strips, count, parts,
                         1);
      for (int64_t k = 0; k < count; ++k) sums[k] += parts[k];
    }
    for (int64_t k = 0; k < count; ++k) out[(t + k) * out_stride] = sums[k];
  }
}

template <DType kWeights>
void DotDecodedAs(const std::byte* row, int64_t columns, const std::byte* const* x, int64_t tokens,
                  float* out, int64_t out_stride) {
  DotDecoded(kWeights, row, columns, x, tokens, out, out_stride);
}

// None where the format has no decoder.
template <DType kWeights>
DotKernel DecodedKernel() {
  if (FindBlockDecoder(kWeights) == nullptr) return {};
  return {ActivationForm::kF32, &DotDecodedAs<kWeights>};
}

// The table later formats are added to: a weight format, what it wants, its dot product.
inline DotKernel FindDot(DType weights) {
  switch (weights) {
    case DType::kF32:
      return {ActivationForm::kF32, &DotWidening<float>};
    case DType::kF16:
      return {ActivationForm::kF32, &DotWidening<hwy::float16_t>};
    case DType::kBF16:
      return {ActivationForm::kF32, &DotWidening<hwy::bfloat16_t>};
    case DType::kQ8_0:
      return {ActivationForm::kQ8, &DotQ8_0};
    case DType::kQ4_0:
      return DecodedKernel<DType::kQ4_0>();
    case DType::kQ4_1:
      return DecodedKernel<DType::kQ4_1>();
    case DType::kQ5_0:
      return DecodedKernel<DType::kQ5_0>();
    case DType::kQ5_1:
      return DecodedKernel<DType::kQ5_1>();
    case DType::kQ2_K:
      return DecodedKernel<DType::kQ2_K>();
    case DType::kQ3_K:
      return DecodedKernel<DType::kQ3_K>();
    case DType::kQ4_K:
      return DecodedKernel<DType::kQ4_K>();
    case DType::kQ5_K:
      return DecodedKernel<DType::kQ5_K>();
    case DType::kQ6_K:
      return DecodedKernel<DType::kQ6_K>();
    case DType::kIQ4_NL:
      return DecodedKernel<DType::kIQ4_NL>();
    case DType::kIQ4_XS:
      return DecodedKernel<DType::kIQ4_XS>();
    case DType::kTQ1_0:
      return DecodedKernel<DType::kTQ1_0>();
    case DType::kTQ2_0:
      return DecodedKernel<DType::kTQ2_0>();
    case DType::kI2_S:
      return DecodedKernel<DType::kI2_S>();
    case DType::kMXFP4:
      return DecodedKernel<DType::kMXFP4>();
    case DType::kQ1_0:
      return DecodedKernel<DType::kQ1_0>();
    case DType::kQ2_0:
      return DecodedKernel<DType::kQ2_0>();
    case DType::kIQ2_XXS:
      return DecodedKernel<DType::kIQ2_XXS>();
    case DType::kIQ2_XS:
      return DecodedKernel<DType::kIQ2_XS>();
    case DType::kIQ2_S:
      return DecodedKernel<DType::kIQ2_S>();
    case DType::kIQ3_XXS:
      return DecodedKernel<DType::kIQ3_XXS>();
    case DType::kIQ3_S:
      return DecodedKernel<DType::kIQ3_S>();
    case DType::kIQ1_S:
      return DecodedKernel<DType::kIQ1_S>();
    case DType::kIQ1_M:
      return DecodedKernel<DType::kIQ1_M>();
    default:
      return {};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#endif  // ODMOE_KERNELS_DOT_INL_H_
