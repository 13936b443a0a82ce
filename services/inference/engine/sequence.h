// One request's tokens on their way through the model.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/inference/engine/admission.h"
#include "services/inference/engine/loaded_model.h"
#include "services/inference/model/kv_cache.h"

namespace odmoe {

// A KV cache and the steps that grow it, each in its turn. Owned by one thread at a time.
class Sequence {
 public:
  // `model` and `call` must outlive the sequence; `grant` covers every token it will hold.
  Sequence(LoadedModel& model, const CallOptions& call, Admission::Grant grant);

  // Called after a step, with the turn still held: the tokens [first, first + count) of those
  // appended are the transformer's last step.
  using AfterStep = absl::FunctionRef<absl::Status(int64_t first, int64_t count)>;

  // Runs `tokens` through the model, as many steps as they take. After an error the sequence holds
  // the tokens of the steps that ended well. CANCELLED, DEADLINE_EXCEEDED: as asked, within a
  // layer. Otherwise the store's errors, or after_step's.
  absl::Status Append(absl::Span<const TokenId> tokens, AfterStep after_step);

  // Append, and the logits [vocabulary] after the last token.
  absl::Status AppendForLogits(absl::Span<const TokenId> tokens, std::vector<float>& logits);

  // Chosen experts of the tokens appended from now on go to `trace`, which must outlive this.
  void set_trace(ChosenExperts* trace) { trace_ = trace; }

  const ExpertUse& use() const { return use_; }
  int64_t length() const { return cache_.length(); }

 private:
  LoadedModel& model_;
  const CallOptions& call_;
  Admission::Grant grant_;
  KvCache cache_;
  ExpertUse use_;
  ChosenExperts* trace_ = nullptr;
};

}  // namespace odmoe
