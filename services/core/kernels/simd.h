// The vector code, chosen once per call site for the machine at hand. Everything that is compiled
// per instruction set is reached through this table and nothing else.
//
// Sums are taken in an order that depends on the length alone, so a result is the same whatever
// else is computed beside it. It may differ in the last bits from one instruction set to another.
#pragma once

#include <cstddef>
#include <cstdint>

#include "services/core/tensor/dtype.h"

namespace odmoe {

// How a format's dot product wants its activations.
enum class ActivationForm : uint8_t {
  kF32,  // floats
  kQ8,   // BlockQ8Activation, one per 32 columns
};

// 32 activations sharing a scale: x is about d * q, d = max|x| / 127.
struct BlockQ8Activation {
  static constexpr int kElements = 32;
  float d;
  int8_t q[kElements];
};
static_assert(sizeof(BlockQ8Activation) == 36);

// out[t * out_stride] = sum over c of row[c] * x[t][c], for t in [0, tokens). `row` is stored
// weights, x[t] activations in the kernel's form, `columns` a whole number of blocks.
using DotFunction = void (*)(const std::byte* row, int64_t columns, const std::byte* const* x,
                             int64_t tokens, float* out, int64_t out_stride);

struct DotKernel {
  ActivationForm form = ActivationForm::kF32;
  DotFunction dot = nullptr;
};

// Kernels compiled for one instruction set. Vectors are float[n]; none needs alignment.
struct SimdKernels {
  const char* target;  // "AVX3"

  // A kernel without a `dot`: the format has none.
  DotKernel (*find_dot)(DType weights);

  // q[i / 32] from x; n is a multiple of 32. A block below 1e-30 becomes zeros.
  void (*quantize_q8)(const float* x, int64_t n, BlockQ8Activation* q);

  // out = x / sqrt(mean(x^2) + eps) * weight. `out` may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // out = gate * sigmoid(gate) * up. `out` may be either.
  void (*silu_gate)(const float* gate, const float* up, int64_t n, float* out);
  // x = 1 / (1 + exp(-x))
  void (*sigmoid)(float* x, int64_t n);
  // x = exp(scale * x - max) / sum; n > 0.
  void (*softmax)(float* x, float scale, int64_t n);
  // One strip of a softmax taken in strips, max and sum carried from strip to strip (Milakov and
  // Gimelshein, arXiv 1805.02867): with m the larger of *max and scale * x, x = exp(scale * x - m).
  // Updates both and returns the factor that what was gathered under the old *max now takes.
  // Start with *max = -infinity, *sum = 0; n > 0, scale > 0.
  float (*softmax_strip)(float* x, float scale, int64_t n, float* max, float* sum);
  // out *= a
  void (*scale)(float a, int64_t n, float* out);
  // out += a * x
  void (*scaled_add)(float a, const float* x, int64_t n, float* out);
  // out[c] += sum over r, in order, of weights[r] * x[r * stride + c]; c in [0, n).
  void (*weighted_rows)(const float* weights, int64_t rows, const float* x, int64_t stride,
                        int64_t n, float* out);
  // Rotates the pairs (x[2i], x[2i+1]) by the angle whose cosine and sine are at table[2i] and
  // table[2i+1]; n is even.
  void (*rope)(const float* table, int64_t n, float* x);
  // The same, pair i being x[i] and x[i + n / 2].
  void (*rope_halves)(const float* table, int64_t n, float* x);
  // x = round(x * s) / s, halves to even, s = 127 / max(max|x|, 1e-5). NaN stays NaN.
  void (*round_to_8_bits)(int64_t n, float* x);
  // out = relu(gate)^2 * up. `out` may be either.
  void (*relu_squared_gate)(const float* gate, const float* up, int64_t n, float* out);
};

// The best this machine can run. Cheap: one load.
const SimdKernels& Simd();

}  // namespace odmoe
