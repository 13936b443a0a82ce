#include "services/core/kernels/expert_mlp.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

WeightMatrix MatrixOf(const ExpertTensor& tensor, const ExpertWork& work,
                      const ObservedTensor* observed) {
  WeightMatrix matrix = {tensor.dtype, tensor.rows, tensor.columns,
                         tensor.bytes / static_cast<uint64_t>(tensor.rows),
                         work.bytes + tensor.offset};
  matrix.observed = observed;
  matrix.matrix = work.expert;
  return matrix;
}

}  // namespace

absl::Status CheckComputable(const ExpertLayout& layout) {
  if (layout.has_biases()) {
    return absl::UnimplementedError("experts with biases are not computed");
  }
  for (const ExpertTensor* tensor : {&layout.w1, &layout.w2, &layout.w3}) {
    ODMOE_RETURN_IF_ERROR(CheckMultipliable(tensor->dtype));
  }
  return absl::OkStatus();
}

void ExpertMlp::Run(ComputePool& pool, const ExpertLayout& layout, const ObservedExperts& observed,
                    Activations& x, absl::Span<const ExpertWork> work) {
  const int64_t ffn = layout.w1.rows;
  const int64_t dim = layout.w2.rows;
  size_t rows = 0;
  for (const ExpertWork& expert : work) rows += expert.tokens.size();
  if (gate_.size() < rows * static_cast<size_t>(ffn)) {
    gate_.resize(rows * ffn);
    up_.resize(rows * ffn);
  }
  w1_rows_.resize(rows);
  w3_rows_.resize(rows);
  const std::byte* const* w1_x = x.Rows(FormFor(layout.w1.dtype));
  const std::byte* const* w3_x = x.Rows(FormFor(layout.w3.dtype));
  products_.clear();
  int64_t row = 0;
  for (const ExpertWork& expert : work) {
    const auto tokens = static_cast<int64_t>(expert.tokens.size());
    for (int64_t i = 0; i < tokens; ++i) {
      w1_rows_[row + i] = w1_x[expert.tokens[i]];
      w3_rows_[row + i] = w3_x[expert.tokens[i]];
    }
    products_.push_back({MatrixOf(layout.w1, expert, observed[0]), w1_rows_.data() + row, tokens,
                         gate_.data() + row * ffn, ffn});
    products_.push_back({MatrixOf(layout.w3, expert, observed[2]), w3_rows_.data() + row, tokens,
                         up_.data() + row * ffn, ffn});
    row += tokens;
  }
  MatMul(pool, products_);

  Simd().silu_gate(gate_.data(), up_.data(), row * ffn, gate_.data());
  inner_.Set(gate_.data(), row, ffn, ffn);
  const std::byte* const* inner_rows = inner_.Rows(FormFor(layout.w2.dtype));
  products_.clear();
  row = 0;
  for (const ExpertWork& expert : work) {
    const auto tokens = static_cast<int64_t>(expert.tokens.size());
    products_.push_back(
        {MatrixOf(layout.w2, expert, observed[1]), inner_rows + row, tokens, expert.out, dim});
    row += tokens;
  }
  MatMul(pool, products_);
}

}  // namespace odmoe
