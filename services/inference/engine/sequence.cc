#include "services/inference/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "services/core/base/status_macros.h"

namespace odmoe {

Sequence::Sequence(LoadedModel& model, const CallOptions& call, Admission::Grant grant)
    : model_(model), call_(call), grant_(std::move(grant)), cache_(model.config) {}

absl::Status Sequence::Append(absl::Span<const TokenId> tokens, AfterStep after_step) {
  const int64_t step_tokens = model_.transformer->max_tokens();
  const auto total = static_cast<int64_t>(tokens.size());
  for (int64_t first = 0; first < total; first += step_tokens) {
    const int64_t count = std::min(step_tokens, total - first);
    ODMOE_ASSIGN_OR_RETURN(const Turns::Turn turn, model_.turns.Take(call_));
    Step step;
    step.tokens = tokens.subspan(first, count);
    step.cache = &cache_;
    step.deadline = call_.deadline;
    step.cancellation = call_.cancellation;
    step.predictor = model_.predictor.get();
    step.use = &use_;
    step.trace = trace_;
    ODMOE_RETURN_IF_ERROR(model_.transformer->Forward(step));
    ODMOE_RETURN_IF_ERROR(after_step(first, count));
  }
  return absl::OkStatus();
}

absl::Status Sequence::AppendForLogits(absl::Span<const TokenId> tokens,
                                       std::vector<float>& logits) {
  const auto total = static_cast<int64_t>(tokens.size());
  logits.resize(model_.config.vocabulary);
  return Append(tokens, [&](int64_t first, int64_t count) {
    if (first + count == total) model_.transformer->Logits(count - 1, 1, logits.data());
    return absl::OkStatus();
  });
}

}  // namespace odmoe
