#include "services/core/tensor/half_rows.h"

#include <cstring>

#include "services/core/base/highway_targets.h"
#include "services/core/tensor/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/core/tensor/half_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace half_lanes {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatLanes = hn::CappedTag<float, 16>;

void WidenF16(const std::byte* in, size_t count, float* out) {
  size_t i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const FloatLanes d;
  const hn::Rebind<hwy::float16_t, decltype(d)> halves;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const auto* at = reinterpret_cast<const hwy::float16_t*>(in + 2 * i);
    hn::StoreU(hn::PromoteTo(d, hn::LoadU(halves, at)), d, out + i);
  }
#endif
  for (; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, sizeof(bits));
    out[i] = F16ToF32(bits);
  }
}

void WidenBF16(const std::byte* in, size_t count, float* out) {
  const FloatLanes d;
  const hn::Rebind<uint32_t, decltype(d)> words;
  const hn::Rebind<uint16_t, decltype(d)> halves;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const auto* at = reinterpret_cast<const uint16_t*>(in + 2 * i);
    const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, at)));
    hn::StoreU(hn::BitCast(d, bits), d, out + i);
  }
  for (; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, sizeof(bits));
    out[i] = BF16ToF32(bits);
  }
}

template <typename ToBits>
void NarrowOneByOne(const float* x, size_t count, ToBits to_bits, std::byte* out) {
  for (size_t i = 0; i < count; ++i) {
    const uint16_t bits = to_bits(x[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

// Vectors with a NaN, which machines and formats treat differently, go one by one.
HWY_INLINE bool HasNaN(hn::Vec<FloatLanes> v) {
  return !hn::AllTrue(FloatLanes(), hn::Eq(v, v));
}

void NarrowF16(const float* x, size_t count, std::byte* out) {
  size_t i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const FloatLanes d;
  const hn::Rebind<hwy::float16_t, FloatLanes> halves;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    if (HasNaN(v)) {
      NarrowOneByOne(x + i, hn::Lanes(d), &F32ToF16, out + 2 * i);
      continue;
    }
    hn::StoreU(hn::DemoteTo(halves, v), halves, reinterpret_cast<hwy::float16_t*>(out + 2 * i));
  }
#endif
  NarrowOneByOne(x + i, count - i, &F32ToF16, out + 2 * i);
}

void NarrowBF16(const float* x, size_t count, std::byte* out) {
  const FloatLanes d;
  const hn::Rebind<uint32_t, FloatLanes> words;
  const hn::Rebind<uint16_t, FloatLanes> halves;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    if (HasNaN(v)) {
      NarrowOneByOne(x + i, hn::Lanes(d), &F32ToBF16, out + 2 * i);
      continue;
    }
    const auto bits = hn::BitCast(words, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(words, 0x7fff)), odd);
    hn::StoreU(hn::TruncateTo(halves, hn::ShiftRight<16>(rounded)), halves,
               reinterpret_cast<uint16_t*>(out + 2 * i));
  }
  NarrowOneByOne(x + i, count - i, &F32ToBF16, out + 2 * i);
}

}  // namespace HWY_NAMESPACE
}  // namespace half_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace odmoe {
namespace half_lanes {
HWY_EXPORT(WidenF16);
HWY_EXPORT(WidenBF16);
HWY_EXPORT(NarrowF16);
HWY_EXPORT(NarrowBF16);
}  // namespace half_lanes

void WidenF16Row(const std::byte* in, absl::Span<float> values) {
  using namespace half_lanes;  // the dispatch names its tables by bare names
  HWY_DYNAMIC_DISPATCH(WidenF16)(in, values.size(), values.data());
}

void WidenBF16Row(const std::byte* in, absl::Span<float> values) {
  using namespace half_lanes;
  HWY_DYNAMIC_DISPATCH(WidenBF16)(in, values.size(), values.data());
}

void NarrowF16Row(absl::Span<const float> values, std::byte* out) {
  using namespace half_lanes;
  HWY_DYNAMIC_DISPATCH(NarrowF16)(values.data(), values.size(), out);
}

void NarrowBF16Row(absl::Span<const float> values, std::byte* out) {
  using namespace half_lanes;
  HWY_DYNAMIC_DISPATCH(NarrowBF16)(values.data(), values.size(), out);
}

}  // namespace odmoe
#endif  // HWY_ONCE
