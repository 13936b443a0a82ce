#include "services/expert_storage/execute/expert_computer.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

// Experts pinned at once for one call, if the store lets it have as many: a deadline is looked at
// between waves.
constexpr size_t kMaxWave = 16;
// How soon a call that waits for an expert notices that its caller is gone.
constexpr absl::Duration kCancellationPoll = absl::Milliseconds(20);

absl::Status OutOfOrder(absl::string_view what, int64_t value) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " ", value, ": expected ascending numbers, each once"));
}

absl::Status CheckTokens(const TokensOfExpert& expert, int64_t tokens) {
  if (expert.tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("expert ", expert.expert, " gets no tokens"));
  }
  int32_t last = -1;
  for (const int32_t token : expert.tokens) {
    if (token < 0 || token >= tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " of expert ", expert.expert, ": expected 0 to ",
                       tokens - 1));
    }
    if (token <= last) return OutOfOrder("token", token);
    last = token;
  }
  return absl::OkStatus();
}

}  // namespace

struct ExpertComputer::Call {
  CachingExpertStore& store;
  const Request& request;
  const LayerExperts& layer;
  Emit emit;
  Activations x;
  std::vector<float> output;                       // [rows, dim] of a wave
  std::vector<absl::Span<const float>> outputs;    // by position in the wave
  std::vector<absl::Status> statuses;
  std::vector<ExpertWork> work;

  int64_t dim() const { return layer.layout.w2.rows; }

  absl::Status CheckWanted() const {
    if (request.cancellation != nullptr && request.cancellation->cancelled()) {
      return absl::CancelledError("the caller is gone");
    }
    if (absl::Now() >= request.deadline) {
      return absl::DeadlineExceededError("the call's deadline has passed");
    }
    return absl::OkStatus();
  }
};

absl::Status ExpertComputer::AwaitFirst(const Call& call, ExpertBatch& batch, size_t position) {
  while (!batch.AwaitReady(position, absl::Now() + kCancellationPoll)) {
    ODMOE_RETURN_IF_ERROR(call.CheckWanted());
  }
  return absl::OkStatus();
}

const char* ExpertComputer::kernel_target() { return Simd().target; }

absl::Status ExpertComputer::Check(const ExpertCatalog& catalog, const Request& request) {
  const LayerExperts* layer = catalog.FindLayer(request.layer);
  if (layer == nullptr) {
    return absl::NotFoundError(absl::StrCat("no experts in layer ", request.layer));
  }
  ODMOE_RETURN_IF_ERROR(CheckComputable(layer->layout));
  const int64_t dim = layer->layout.w1.columns;
  if (request.tokens < 1 || request.tokens > ExpertExecutor::kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat(request.tokens, " tokens, expected 1 to ",
                                                   ExpertExecutor::kMaxTokens));
  }
  if (request.hidden.size() != static_cast<uint64_t>(request.tokens * dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a hidden state of ", request.hidden.size(), " numbers, expected ",
                     request.tokens, " tokens of ", dim));
  }
  if (request.experts.empty()) return absl::InvalidArgumentError("no expert is asked for");
  uint64_t rows = 0;
  int32_t last = -1;
  for (const TokensOfExpert& expert : request.experts) {
    if (expert.expert < 0 || expert.expert >= layer->expert_count) {
      return absl::NotFoundError(absl::StrCat(
          "no expert ", expert.expert, " in layer ", request.layer, ", which has ",
          layer->expert_count));
    }
    if (expert.expert <= last) return OutOfOrder("expert", expert.expert);
    last = expert.expert;
    ODMOE_RETURN_IF_ERROR(CheckTokens(expert, request.tokens));
    rows += expert.tokens.size();
  }
  if (rows * static_cast<uint64_t>(dim) * sizeof(float) > ExpertExecutor::kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("outputs of ", rows, " rows of ", dim, " numbers, expected at most ",
                     ExpertExecutor::kMaxBytes, " bytes; ask for fewer experts or tokens"));
  }
  return absl::OkStatus();
}

absl::Status ExpertComputer::Run(CachingExpertStore& store, const Request& request, Emit emit) {
  const LayerExperts& layer = *store.catalog().FindLayer(request.layer);
  Call call{store, request, layer, emit, {}, {}, {}, {}, {}};
  call.x.Set(request.hidden.data(), request.tokens, call.dim(), call.dim());
  std::vector<size_t> order(request.experts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // What is there need not wait in a wave for what is not.
  const auto absent =
      std::stable_partition(order.begin(), order.end(), [&](size_t i) {
        return store.Resident({request.layer, request.experts[i].expert});
      });
  const size_t most = std::min(store.max_execute_batch(), kMaxWave);
  for (auto next = order.begin(); next != order.end();) {
    const auto group_end = next < absent ? absent : order.end();
    const auto count = std::min<size_t>(most, group_end - next);
    ODMOE_RETURN_IF_ERROR(call.CheckWanted());
    ODMOE_RETURN_IF_ERROR(RunWave(call, absl::MakeConstSpan(&*next, count)));
    next += static_cast<int64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status ExpertComputer::RunWave(Call& call, absl::Span<const size_t> wave) {
  std::vector<ExpertId> ids;
  size_t rows = 0;
  for (const size_t i : wave) {
    ids.push_back({call.request.layer, call.request.experts[i].expert});
    rows += call.request.experts[i].tokens.size();
  }
  call.output.resize(rows * call.dim());
  call.outputs.assign(wave.size(), {});
  call.statuses.assign(wave.size(), absl::OkStatus());
  {
    ODMOE_ASSIGN_OR_RETURN(const auto batch,
                           call.store.AcquireToExecute(ids, call.request.deadline));
    ODMOE_RETURN_IF_ERROR(Compute(call, wave, *batch));
  }
  for (size_t k = 0; k < wave.size(); ++k) {
    const bool wanted = call.statuses[k].ok() ? call.emit(wave[k], call.outputs[k])
                                              : call.emit(wave[k], call.statuses[k]);
    if (!wanted) return absl::CancelledError("the caller is gone");
  }
  return absl::OkStatus();
}

absl::Status ExpertComputer::Compute(Call& call, absl::Span<const size_t> wave,
                                     ExpertBatch& batch) {
  std::vector<size_t> pending(wave.size());
  std::iota(pending.begin(), pending.end(), size_t{0});
  float* next = call.output.data();
  while (!pending.empty()) {
    ODMOE_RETURN_IF_ERROR(call.CheckWanted());
    call.work.clear();
    // All that are ready; the first where none is.
    auto waiting = std::stable_partition(pending.begin(), pending.end(),
                                         [&](size_t k) { return batch.Ready(k); });
    if (waiting == pending.begin()) {
      ODMOE_RETURN_IF_ERROR(AwaitFirst(call, batch, pending.front()));
      ++waiting;
    }
    for (auto k = pending.begin(); k != waiting; ++k) {
      const auto view = batch.Wait(*k);
      call.statuses[*k] = view.status();
      if (!view.ok()) continue;
      const TokensOfExpert& expert = call.request.experts[wave[*k]];
      call.work.push_back({view->data, expert.expert, expert.tokens, next});
      call.outputs[*k] = {next, expert.tokens.size() * call.dim()};
      next += call.outputs[*k].size();
    }
    pending.erase(pending.begin(), waiting);
    if (call.work.empty()) continue;
    constexpr ObservedExperts kNobody = {};
    absl::MutexLock lock(&computing_);
    mlp_.Run(pool_, call.layer.layout, kNobody, call.x, call.work);
  }
  return absl::OkStatus();
}

}  // namespace odmoe
