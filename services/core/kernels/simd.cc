#include "services/core/kernels/simd.h"

#include "services/core/base/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/core/kernels/simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "services/core/kernels/dot-inl.h"
#include "services/core/kernels/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace HWY_NAMESPACE {

const SimdKernels* Table() {
  static constexpr SimdKernels kTable = {
      .target = &HWY_STR(HWY_NAMESPACE)[2],  // without the N_
      .find_dot = &FindDot,
      .quantize_q8 = &QuantizeQ8,
      .rms_norm = &RmsNorm,
      .silu_gate = &SiluGate,
      .sigmoid = &Sigmoid,
      .softmax = &Softmax,
      .softmax_strip = &SoftmaxStrip,
      .scale = &Scale,
      .scaled_add = &ScaledAdd,
      .weighted_rows = &WeightedRows,
      .rope = &Rope,
      .rope_halves = &RopeHalves,
      .round_to_8_bits = &RoundTo8BitsRow,
      .relu_squared_gate = &ReluSquaredGate,
  };
  return &kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace odmoe {

HWY_EXPORT(Table);

const SimdKernels& Simd() { return *HWY_DYNAMIC_DISPATCH(Table)(); }

}  // namespace odmoe
#endif  // HWY_ONCE
