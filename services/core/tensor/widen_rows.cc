#include "services/core/tensor/widen_rows.h"

#include <cstring>

#include "services/core/tensor/convert.h"

// Arrays of vectors do not exist for vectors without a size; without AVX2 there is no instruction
// for halves.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3 | HWY_SSE4)
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/core/tensor/widen_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace row_widening {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void WidenF16(const std::byte* in, size_t count, float* out) {
  size_t i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const hn::CappedTag<float, 16> d;
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
  const hn::CappedTag<float, 16> d;
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

}  // namespace HWY_NAMESPACE
}  // namespace row_widening
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace odmoe {
namespace row_widening {
HWY_EXPORT(WidenF16);
HWY_EXPORT(WidenBF16);
}  // namespace row_widening

void WidenF16Row(const std::byte* in, absl::Span<float> values) {
  using namespace row_widening;  // the dispatch names its tables by bare names
  HWY_DYNAMIC_DISPATCH(WidenF16)(in, values.size(), values.data());
}

void WidenBF16Row(const std::byte* in, absl::Span<float> values) {
  using namespace row_widening;
  HWY_DYNAMIC_DISPATCH(WidenBF16)(in, values.size(), values.data());
}

}  // namespace odmoe
#endif  // HWY_ONCE
