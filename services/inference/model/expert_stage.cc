#include "services/inference/model/expert_stage.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

// How soon a request that waits for an expert notices that it was cancelled.
constexpr absl::Duration kArrivalPoll = absl::Milliseconds(10);

WeightMatrix MatrixOf(const ExpertTensor& tensor, const std::byte* bytes,
                      const ObservedTensor* observed, int32_t expert) {
  WeightMatrix matrix = {tensor.dtype, tensor.rows, tensor.columns,
                         tensor.bytes / static_cast<uint64_t>(tensor.rows), bytes + tensor.offset};
  matrix.observed = observed;
  matrix.matrix = expert;
  return matrix;
}

}  // namespace

ExpertStage::ExpertStage(const ModelConfig& config, ComputePool& pool, ExpertStore& store,
                         Lookahead& lookahead, int64_t max_tokens)
    : config_(config),
      pool_(pool),
      store_(store),
      shared_(config, pool, config.shared_ffn, max_tokens),
      router_(config.routing),
      lookahead_(lookahead),
      logits_(max_tokens * config.routing.experts),
      shared_output_(max_tokens * config.dim) {
  const int64_t slots = max_tokens * config.routing.used;
  choice_.resize(slots);
  weight_.resize(slots);
  slots_.resize(slots);
  row_of_slot_.resize(slots);
  w1_rows_.resize(slots);
  w3_rows_.resize(slots);
  gate_.resize(slots * config.expert_ffn);
  up_.resize(slots * config.expert_ffn);
  output_.resize(slots * config.dim);
  chosen_.reserve(config.routing.experts);
  ids_.reserve(config.routing.experts);
  products_.reserve(2 * config.routing.experts);
}

absl::Status ExpertStage::Run(const Step& step, const LayerWeights& weights, int32_t layer,
                              Activations& x, float* hidden) {
  ODMOE_RETURN_IF_ERROR(Route(step, weights, layer, x));
  GroupByExpert();
  rows_done_ = 0;
  // Experts that do not fit the store at once come in waves.
  const size_t wave = std::max<size_t>(1, store_.max_batch());
  for (size_t first = 0; first < chosen_.size(); first += wave) {
    const size_t count = std::min(wave, chosen_.size() - first);
    ODMOE_RETURN_IF_ERROR(RunWave(step, weights, layer, first, count, x, [&] {
      if (first > 0) return;
      lookahead_.Predict(step, layer, hidden);
      if (weights.has_ffn) shared_.Run(weights.ffn, x, shared_output_.data());
    }));
  }
  Reduce(weights, x.rows(), hidden);
  return absl::OkStatus();
}

absl::Status ExpertStage::Route(const Step& step, const LayerWeights& weights, int32_t layer,
                                Activations& x) {
  const int64_t experts = config_.routing.experts;
  const int64_t used = config_.routing.used;
  const int64_t tokens = x.rows();
  choice_.resize(tokens * used);
  MatMul(pool_, weights.router, x, logits_.data(), experts);
  for (int64_t t = 0; t < tokens; ++t) {
    if (!router_.Choose(absl::MakeSpan(logits_.data() + t * experts, experts), weights.router_bias,
                        choice_.data() + t * used, weight_.data() + t * used)) {
      return absl::DataLossError(absl::StrCat("the router of layer ", layer,
                                              " gave scores that are not numbers; the model's "
                                              "weights may be corrupt"));
    }
  }
  lookahead_.Count(step, layer, choice_);
  if (step.trace != nullptr) Trace(*step.trace, layer, tokens);
  return absl::OkStatus();
}

void ExpertStage::Trace(ExpertTrace& trace, int32_t layer, int64_t tokens) const {
  const int64_t used = config_.routing.used;
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> experts(choice_.begin() + t * used, choice_.begin() + (t + 1) * used);
    std::sort(experts.begin(), experts.end());
    trace[layer].push_back(std::move(experts));
  }
}

void ExpertStage::GroupByExpert() {
  slots_.resize(choice_.size());
  std::iota(slots_.begin(), slots_.end(), 0);
  std::sort(slots_.begin(), slots_.end(), [this](int32_t a, int32_t b) {
    return choice_[a] != choice_[b] ? choice_[a] < choice_[b] : a < b;
  });
  chosen_.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(slots_.size()); ++i) {
    const int32_t expert = choice_[slots_[i]];
    if (chosen_.empty() || chosen_.back().expert != expert) chosen_.push_back({expert, i, 0});
    ++chosen_.back().slot_count;
  }
}

absl::Status ExpertStage::RunWave(const Step& step, const LayerWeights& weights, int32_t layer,
                                  size_t first, size_t count, Activations& x,
                                  absl::FunctionRef<void()> meanwhile) {
  ids_.clear();
  for (size_t i = 0; i < count; ++i) ids_.push_back({layer, chosen_[first + i].expert});
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<ExpertBatch> batch, store_.Acquire(ids_, step.deadline));
  meanwhile();
  pending_.resize(count);
  std::iota(pending_.begin(), pending_.end(), size_t{0});
  while (!pending_.empty()) {
    ODMOE_RETURN_IF_ERROR(step.CheckWanted());
    ODMOE_RETURN_IF_ERROR(TakeArrived(step, *batch));
    ComputeArrived(weights, first, x);
  }
  step.use->hits += batch->hits();
  step.use->misses += count - batch->hits();
  return absl::OkStatus();
}

absl::Status ExpertStage::AwaitArrival(const Step& step, ExpertBatch& batch, size_t position) {
  while (step.cancellation != nullptr &&
         !batch.AwaitReady(position, absl::Now() + kArrivalPoll)) {
    ODMOE_RETURN_IF_ERROR(step.CheckWanted());
  }
  return batch.Wait(position).status();
}

absl::Status ExpertStage::TakeArrived(const Step& step, ExpertBatch& batch) {
  arrived_.clear();
  for (const size_t position : pending_) {
    if (batch.Ready(position)) arrived_.push_back({position});
  }
  if (arrived_.empty()) {
    arrived_.push_back({pending_.front()});
    const int64_t start_ns = absl::GetCurrentTimeNanos();
    const absl::Status status = AwaitArrival(step, batch, pending_.front());
    step.use->stall_ms += static_cast<double>(absl::GetCurrentTimeNanos() - start_ns) * 1e-6;
    ODMOE_RETURN_IF_ERROR(status);
  }
  for (Arrived& arrived : arrived_) {
    ODMOE_ASSIGN_OR_RETURN(const ExpertView view, batch.Wait(arrived.position));
    arrived.bytes = view.data;
    pending_.erase(std::find(pending_.begin(), pending_.end(), arrived.position));
  }
  return absl::OkStatus();
}

void ExpertStage::ComputeArrived(const LayerWeights& weights, size_t first, Activations& x) {
  const ExpertLayout& layout = weights.experts->layout;
  const auto& [w1_observed, w2_observed, w3_observed] = weights.observed_experts;
  const int64_t ffn = config_.expert_ffn;
  const int64_t used = config_.routing.used;
  const int64_t first_row = rows_done_;
  const std::byte* const* w1_x = x.Rows(FormFor(layout.w1.dtype));
  const std::byte* const* w3_x = x.Rows(FormFor(layout.w3.dtype));
  products_.clear();
  for (const Arrived& arrived : arrived_) {
    const Chosen& chosen = chosen_[first + arrived.position];
    const int64_t row = rows_done_;
    for (int32_t i = 0; i < chosen.slot_count; ++i, ++rows_done_) {
      const int32_t slot = slots_[chosen.first_slot + i];
      row_of_slot_[slot] = static_cast<int32_t>(rows_done_);
      w1_rows_[rows_done_] = w1_x[slot / used];
      w3_rows_[rows_done_] = w3_x[slot / used];
    }
    products_.push_back({MatrixOf(layout.w1, arrived.bytes, w1_observed, chosen.expert),
                         w1_rows_.data() + row,
                         chosen.slot_count, gate_.data() + row * ffn, ffn});
    products_.push_back({MatrixOf(layout.w3, arrived.bytes, w3_observed, chosen.expert),
                         w3_rows_.data() + row,
                         chosen.slot_count, up_.data() + row * ffn, ffn});
  }
  MatMul(pool_, products_);

  const int64_t rows = rows_done_ - first_row;
  float* gate = gate_.data() + first_row * ffn;
  Simd().silu_gate(gate, up_.data() + first_row * ffn, rows * ffn, gate);
  inner_.Set(gate, rows, ffn, ffn);
  const std::byte* const* inner_rows = inner_.Rows(FormFor(layout.w2.dtype));
  products_.clear();
  int64_t row = 0;
  for (const Arrived& arrived : arrived_) {
    const Chosen& chosen = chosen_[first + arrived.position];
    products_.push_back({MatrixOf(layout.w2, arrived.bytes, w2_observed, chosen.expert),
                         inner_rows + row, chosen.slot_count,
                         output_.data() + (first_row + row) * config_.dim, config_.dim});
    row += chosen.slot_count;
  }
  MatMul(pool_, products_);
}

void ExpertStage::Reduce(const LayerWeights& weights, int64_t tokens, float* hidden) {
  const SimdKernels& simd = Simd();
  const int64_t dim = config_.dim;
  const int64_t used = config_.routing.used;
  for (int64_t t = 0; t < tokens; ++t) {
    float* sum = hidden + t * dim;
    if (weights.has_ffn) simd.scaled_add(1.0f, shared_output_.data() + t * dim, dim, sum);
    for (int64_t slot = t * used; slot < (t + 1) * used; ++slot) {
      simd.scaled_add(weight_[slot], output_.data() + row_of_slot_[slot] * dim, dim, sum);
    }
  }
}

}  // namespace odmoe
