// The arithmetic of routed experts, one piece of code wherever they are computed: in the process
// that runs the model, or where the experts are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/mat_mul.h"
#include "services/core/kernels/weight_matrix.h"

namespace odmoe {

// UNIMPLEMENTED: a format no kernel multiplies by, or biases.
absl::Status CheckComputable(const ExpertLayout& layout);

// One expert and the tokens that chose it.
struct ExpertWork {
  const std::byte* bytes = nullptr;    // as the layout says
  int32_t expert = 0;                  // for observers
  absl::Span<const int32_t> tokens;    // rows of the activations
  float* out = nullptr;                // [tokens, dim]
};

// Whom to tell of products with w1, w2 and w3; null: nobody.
using ObservedExperts = const ObservedTensor* [3];

// Experts of one layer, several at a time. Not thread-safe: keeps working memory, which grows to
// what the largest Run takes.
class ExpertMlp {
 public:
  // out[i] = w2 (silu(w1 x[tokens[i]]) * (w3 x[tokens[i]])) for each of `work`. An output does not
  // depend, to the bit, on what else is computed with it. Requires CheckComputable(layout), and
  // x.columns() == layout.w1.columns.
  void Run(ComputePool& pool, const ExpertLayout& layout, const ObservedExperts& observed,
           Activations& x, absl::Span<const ExpertWork> work);

 private:
  std::vector<const std::byte*> w1_rows_, w3_rows_;  // activations, gathered
  std::vector<float> gate_, up_;                     // [rows, ffn]
  Activations inner_;
  std::vector<Product> products_;
};

}  // namespace odmoe
