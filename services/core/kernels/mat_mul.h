// Matrix products straight on stored weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/weight_matrix.h"

namespace odmoe {

// out[t * out_stride + r] = sum over c of weights[r, c] * x[t][c], for every row r and token t,
// times weights.scale.
// `x` has `tokens` rows of weights.columns activations in FormFor(weights.dtype).
struct Product {
  WeightMatrix weights;
  const std::byte* const* x = nullptr;
  int64_t tokens = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
};

// UNIMPLEMENTED: no kernel multiplies by this format. Check at load; what follows requires it.
absl::Status CheckMultipliable(DType weights);

// The form of activations that products with `weights` take.
ActivationForm FormFor(DType weights);

// Computes all products, rows shared out to the pool's threads, and first tells observers, if there
// are any, on the calling thread. An output does not depend, to the
// bit, on the number of threads, rows, tokens or products.
void MatMul(ComputePool& pool, absl::Span<const Product> products);

// One matrix with all rows of `x`.
void MatMul(ComputePool& pool, const WeightMatrix& weights, Activations& x, float* out,
            int64_t out_stride);

}  // namespace odmoe
