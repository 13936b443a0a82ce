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

// Waits for what comes, from the store or the second host, until nobody wants it any more.
template <typename Batch>
absl::Status AwaitArrival(const Step& step, Batch& batch, size_t position) {
  while (step.cancellation != nullptr &&
         !batch.AwaitReady(position, absl::Now() + kArrivalPoll)) {
    ODMOE_RETURN_IF_ERROR(step.CheckWanted());
  }
  return batch.Wait(position).status();
}

}  // namespace

ExpertStage::ExpertStage(const ModelConfig& config, ComputePool& pool, ExpertStore& store,
                         const RemoteExperts& remote, Lookahead& lookahead, int64_t max_tokens)
    : config_(config),
      pool_(pool),
      store_(store),
      executor_(remote.mode == RemoteMode::kFetch ? nullptr : remote.executor),
      fetch_or_execute_(remote.mode, store.catalog()),
      shared_(config, pool, config.shared_ffn, max_tokens),
      router_(config.routing),
      lookahead_(lookahead),
      logits_(max_tokens * config.routing.experts),
      shared_output_(max_tokens * config.dim) {
  const int64_t slots = max_tokens * config.routing.used;
  choice_.resize(slots);
  weight_.resize(slots);
  slots_.resize(slots);
  tokens_.resize(slots);
  row_of_slot_.resize(slots);
  output_.resize(slots * config.dim);
  executing_ = executor_ != nullptr && remote.mode == RemoteMode::kExecute;
  lookahead_.Pause(executing_);
  chosen_.reserve(config.routing.experts);
  ids_.reserve(config.routing.experts);
}

absl::Status ExpertStage::Run(const Step& step, const LayerWeights& weights, int32_t layer,
                              Activations& x, float* hidden) {
  ODMOE_RETURN_IF_ERROR(Route(step, weights, layer, x));
  GroupByExpert();
  Divide(layer);
  const std::unique_ptr<ExpertExecution> execution = StartThere(step, layer, x);
  const auto meanwhile = [&] {
    // What is executed is not brought: the link is for what somebody waits for.
    lookahead_.Pause(executing_);
    lookahead_.Predict(step, layer, hidden);
    if (weights.has_ffn) shared_.Run(weights.ffn, x, shared_output_.data());
  };
  ODMOE_RETURN_IF_ERROR(RunHere(step, weights, layer, x, meanwhile));
  if (execution != nullptr) {
    TakeExecuted(step, layer, *execution);
    ODMOE_RETURN_IF_ERROR(RunHere(step, weights, layer, x, [] {}));
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

void ExpertStage::Trace(ChosenExperts& trace, int32_t layer, int64_t tokens) const {
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
  tokens_.resize(slots_.size());
  chosen_.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(slots_.size()); ++i) {
    const int32_t slot = slots_[i];
    const int32_t expert = choice_[slot];
    tokens_[i] = slot / config_.routing.used;
    row_of_slot_[slot] = i;
    if (chosen_.empty() || chosen_.back().expert != expert) chosen_.push_back({expert, i, 0});
    ++chosen_.back().slot_count;
  }
}

void ExpertStage::Divide(int32_t layer) {
  const auto most_rows = std::min<int64_t>(
      ExpertExecutor::kMaxTokens,
      ExpertExecutor::kMaxBytes / (sizeof(float) * static_cast<uint64_t>(config_.dim)));
  here_.clear();
  there_.clear();
  int64_t rows = 0;
  for (size_t i = 0; i < chosen_.size(); ++i) {
    const int32_t count = chosen_[i].slot_count;
    if (executor_ == nullptr || rows + count > most_rows ||
        store_.Resident({layer, chosen_[i].expert})) {
      here_.push_back(i);
    } else {
      there_.push_back(i);
      rows += count;
    }
  }
  if (there_.empty()) return;
  const auto absent = static_cast<int64_t>(there_.size());
  executing_ = fetch_or_execute_.Execute(absent, rows, absl::Now());
  if (executing_) return;
  there_.clear();
  here_.resize(chosen_.size());
  std::iota(here_.begin(), here_.end(), size_t{0});
}

std::unique_ptr<ExpertExecution> ExpertStage::StartThere(const Step& step, int32_t layer,
                                                         Activations& x) {
  if (there_.empty()) return nullptr;
  const int64_t dim = config_.dim;
  const std::byte* const* rows = x.Rows(ActivationForm::kF32);
  sent_row_.assign(x.rows(), -1);
  sent_.clear();
  sent_tokens_.clear();
  sent_experts_.clear();
  for (const size_t i : there_) {
    for (const int32_t token : WorkOf(chosen_[i], nullptr).tokens) sent_row_[token] = 0;
  }
  int32_t count = 0;
  for (int64_t t = 0; t < x.rows(); ++t) {
    if (sent_row_[t] < 0) continue;
    sent_row_[t] = count++;
    const float* row = reinterpret_cast<const float*>(rows[t]);
    sent_.insert(sent_.end(), row, row + dim);
  }
  // The spans point into sent_tokens_, which must not grow once they do.
  for (const size_t i : there_) {
    for (const int32_t t : WorkOf(chosen_[i], nullptr).tokens) sent_tokens_.push_back(sent_row_[t]);
  }
  const int32_t* next = sent_tokens_.data();
  for (const size_t i : there_) {
    const auto tokens = static_cast<size_t>(chosen_[i].slot_count);
    sent_experts_.push_back({chosen_[i].expert, {next, tokens}});
    next += tokens;
  }
  sent_at_ = absl::Now();
  auto execution = executor_->Execute(layer, count, sent_, sent_experts_, step.deadline);
  if (execution.ok()) return *std::move(execution);
  fetch_or_execute_.Failed(sent_at_);
  here_.insert(here_.end(), there_.begin(), there_.end());
  there_.clear();
  executing_ = false;
  return nullptr;
}

void ExpertStage::TakeExecuted(const Step& step, int32_t layer, ExpertExecution& execution) {
  const int64_t dim = config_.dim;
  here_.clear();
  const absl::Time start = absl::Now();
  uint64_t executed = 0;
  for (size_t k = 0; k < there_.size(); ++k) {
    const Chosen& chosen = chosen_[there_[k]];
    const absl::Status arrived = AwaitArrival(step, execution, k);
    const auto output = arrived.ok() ? execution.Wait(k) : arrived;
    if (!output.ok()) {
      here_.push_back(there_[k]);
      continue;
    }
    std::copy(output->begin(), output->end(), output_.data() + chosen.first_slot * dim);
    ++executed;
    step.use->executed_bytes += output->size() * sizeof(float);
    const ExpertId id = {layer, chosen.expert};
    if (fetch_or_execute_.WorthBringing(id, chosen.slot_count)) store_.Prefetch({&id, 1});
  }
  const absl::Time end = absl::Now();
  step.use->stall_ms += absl::ToDoubleMilliseconds(end - start);
  step.use->executed += executed;
  step.use->executed_bytes += sent_.size() * sizeof(float);
  if (here_.empty()) {
    fetch_or_execute_.Executed(static_cast<int64_t>(there_.size()),
                               static_cast<int64_t>(sent_tokens_.size()), end - sent_at_);
  } else if (step.CheckWanted().ok()) {
    fetch_or_execute_.Failed(end);  // and not just given up here
  }
}

absl::Status ExpertStage::RunHere(const Step& step, const LayerWeights& weights, int32_t layer,
                                  Activations& x, absl::FunctionRef<void()> meanwhile) {
  if (here_.empty()) meanwhile();
  // Experts that do not fit the store at once come in waves.
  for (size_t first = 0; first < here_.size();) {
    ODMOE_ASSIGN_OR_RETURN(const size_t count, RunWave(step, weights, layer, first, x, [&] {
                             if (first == 0) meanwhile();
                           }));
    first += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ExpertBatch>> ExpertStage::AcquireWave(const Step& step,
                                                                      int32_t layer,
                                                                      size_t first) {
  while (true) {
    const size_t count =
        std::min(std::max<size_t>(1, store_.max_batch()), here_.size() - first);
    ids_.clear();
    for (size_t i = 0; i < count; ++i) ids_.push_back({layer, chosen_[here_[first + i]].expert});
    auto batch = store_.Acquire(ids_, step.deadline);
    // The store's budget may have become smaller since it was asked.
    const bool too_many = absl::IsResourceExhausted(batch.status()) &&
                          std::max<size_t>(1, store_.max_batch()) < count;
    if (!too_many) return batch;
  }
}

absl::StatusOr<size_t> ExpertStage::RunWave(const Step& step, const LayerWeights& weights,
                                            int32_t layer, size_t first, Activations& x,
                                            absl::FunctionRef<void()> meanwhile) {
  const absl::Time start = absl::Now();
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<ExpertBatch> batch,
                         AcquireWave(step, layer, first));
  const size_t count = ids_.size();
  const size_t misses = count - batch->hits();
  meanwhile();
  pending_.resize(count);
  std::iota(pending_.begin(), pending_.end(), size_t{0});
  while (!pending_.empty()) {
    ODMOE_RETURN_IF_ERROR(step.CheckWanted());
    ODMOE_RETURN_IF_ERROR(TakeArrived(step, first, *batch));
    if (pending_.empty() && misses > 0 && executor_ != nullptr) {
      fetch_or_execute_.Fetched(static_cast<int64_t>(misses), absl::Now() - start);
    }
    mlp_.Run(pool_, weights.experts->layout, weights.observed_experts, x, work_);
  }
  step.use->hits += batch->hits();
  step.use->misses += misses;
  return count;
}

absl::Status ExpertStage::TakeArrived(const Step& step, size_t first, ExpertBatch& batch) {
  arrived_.clear();
  for (const size_t position : pending_) {
    if (batch.Ready(position)) arrived_.push_back(position);
  }
  if (arrived_.empty()) {
    arrived_.push_back(pending_.front());
    const int64_t start_ns = absl::GetCurrentTimeNanos();
    const absl::Status status = AwaitArrival(step, batch, pending_.front());
    step.use->stall_ms += static_cast<double>(absl::GetCurrentTimeNanos() - start_ns) * 1e-6;
    ODMOE_RETURN_IF_ERROR(status);
  }
  work_.clear();
  for (const size_t position : arrived_) {
    ODMOE_ASSIGN_OR_RETURN(const ExpertView view, batch.Wait(position));
    work_.push_back(WorkOf(chosen_[here_[first + position]], view.data));
    pending_.erase(std::find(pending_.begin(), pending_.end(), position));
  }
  return absl::OkStatus();
}

ExpertWork ExpertStage::WorkOf(const Chosen& chosen, const std::byte* bytes) {
  return {bytes, chosen.expert,
          {tokens_.data() + chosen.first_slot, static_cast<size_t>(chosen.slot_count)},
          output_.data() + chosen.first_slot * config_.dim};
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
