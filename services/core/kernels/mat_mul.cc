#include "services/core/kernels/mat_mul.h"

#include <algorithm>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "services/core/generation/input_observer.h"
#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

// Rows that stay in cache while the tokens pass over them. 16 rows of 7168 bf16 are 224 KiB, a
// fraction of a core's second-level cache.
constexpr int64_t kBlockRows = 16;
// Tokens taken over a block of rows together: their activations stay in the first-level cache.
constexpr int64_t kTokenStrip = 4;
// Multiply-adds worth handing to another thread, some tens of microseconds' worth.
constexpr int64_t kGrainOperations = 1 << 16;

int64_t BlockCount(const Product& p) { return (p.weights.rows + kBlockRows - 1) / kBlockRows; }

// What a format has one of for its whole tensor.
void ScaleBlock(const Product& p, int64_t first_row, int64_t last_row, int64_t first_token,
                int64_t tokens) {
  for (int64_t t = first_token; t < first_token + tokens; ++t) {
    float* out = p.out + t * p.out_stride;
    for (int64_t r = first_row; r < last_row; ++r) out[r] *= p.weights.scale;
  }
}

void ComputeBlock(const Product& p, DotFunction dot, int64_t block) {
  const int64_t first = block * kBlockRows;
  const int64_t last = std::min(first + kBlockRows, p.weights.rows);
  for (int64_t t = 0; t < p.tokens; t += kTokenStrip) {
    const int64_t tokens = std::min(kTokenStrip, p.tokens - t);
    for (int64_t r = first; r < last; ++r) {
      dot(p.weights.Row(r), p.weights.columns, p.x + t, tokens, p.out + t * p.out_stride + r,
          p.out_stride);
    }
    if (p.weights.scale != 1.0f) ScaleBlock(p, first, last, t, tokens);
  }
}

// Tells who wants to know what a product takes in.
void Observe(const Product& p) {
  const ObservedTensor& tensor = *p.weights.observed;
  ProductInput input;
  input.tensor = tensor.name;
  input.matrix = p.weights.matrix;
  input.matrices = tensor.matrices;
  input.routed = tensor.routed;
  input.columns = p.weights.columns;
  std::vector<const float*> rows(p.tokens);
  std::vector<float> decoded;
  if (FormFor(p.weights.dtype) == ActivationForm::kF32) {
    for (int64_t t = 0; t < p.tokens; ++t) rows[t] = reinterpret_cast<const float*>(p.x[t]);
  } else {
    constexpr int64_t kElements = BlockQ8Activation::kElements;
    decoded.resize(p.tokens * input.columns);
    for (int64_t t = 0; t < p.tokens; ++t) {
      float* row = decoded.data() + t * input.columns;
      const auto* blocks = reinterpret_cast<const BlockQ8Activation*>(p.x[t]);
      for (int64_t i = 0; i < input.columns; ++i) {
        const BlockQ8Activation& block = blocks[i / kElements];
        row[i] = block.d * static_cast<float>(block.q[i % kElements]);
      }
      rows[t] = row;
    }
  }
  input.rows = rows;
  tensor.observer->OnInput(input);
}

}  // namespace

absl::Status CheckMultipliable(DType weights) {
  if (Simd().find_dot(weights).dot != nullptr) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("no kernel multiplies by weights in ", Info(weights).name));
}

ActivationForm FormFor(DType weights) { return Simd().find_dot(weights).form; }

void MatMul(ComputePool& pool, absl::Span<const Product> products) {
  absl::InlinedVector<int64_t, 65> starts = {0};
  int64_t operations = 0;
  for (const Product& p : products) {
    if (p.weights.observed != nullptr) Observe(p);
    starts.push_back(starts.back() + BlockCount(p));
    operations += p.weights.rows * p.weights.columns * p.tokens;
  }
  const int64_t blocks = starts.back();
  if (blocks == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(
                                                                    1, operations / blocks));
  const SimdKernels& simd = Simd();
  pool.ParallelFor(blocks, grain, [&](int64_t begin, int64_t end) {
    size_t i = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
    for (int64_t block = begin; block < end; ++block) {
      while (block >= starts[i + 1]) ++i;
      const Product& p = products[i];
      ComputeBlock(p, simd.find_dot(p.weights.dtype).dot, block - starts[i]);
    }
  });
}

void MatMul(ComputePool& pool, const WeightMatrix& weights, Activations& x, float* out,
            int64_t out_stride) {
  const Product product = {weights, x.Rows(FormFor(weights.dtype)), x.rows(), out, out_stride};
  MatMul(pool, absl::MakeConstSpan(&product, 1));
}

}  // namespace odmoe
