// The routed and shared experts of one layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_executor.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/remote_mode.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/expert_mlp.h"
#include "services/inference/model/config.h"
#include "services/inference/model/feed_forward.h"
#include "services/inference/model/fetch_or_execute.h"
#include "services/inference/model/lookahead.h"
#include "services/inference/model/router.h"
#include "services/inference/model/step.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// A second host that computes experts, and when it is asked to.
struct RemoteExperts {
  ExpertExecutor* executor = nullptr;  // null: there is none
  RemoteMode mode = RemoteMode::kAuto;
};

// Routes, asks the store for the chosen experts, computes what is there while the rest arrives, and
// adds up in routing order, so that the order of arrival leaves no trace in the result. Experts
// that are not resident may be computed on a second host meanwhile, by the same code: that leaves
// no trace either.
// Not thread-safe: keeps working memory.
class ExpertStage {
 public:
  // The references, and the executor, must outlive the stage. At most `max_tokens` tokens a step.
  ExpertStage(const ModelConfig& config, ComputePool& pool, ExpertStore& store,
              const RemoteExperts& remote, Lookahead& lookahead, int64_t max_tokens);

  // hidden[t] += shared experts(x[t]) + sum over the chosen of weight * expert(x[t]); x is
  // normalized hidden, both [tokens, dim].
  // DATA_LOSS: the router gave no numbers, or an expert's bytes are corrupt. RESOURCE_EXHAUSTED,
  // UNAVAILABLE, DEADLINE_EXCEEDED: the store's. On an error `hidden` is unchanged.
  absl::Status Run(const Step& step, const LayerWeights& weights, int32_t layer, Activations& x,
                   float* hidden);

 private:
  // An expert that some of the step's tokens have chosen.
  struct Chosen {
    int32_t expert = 0;
    int32_t first_slot = 0;  // in slots_: its tokens' choices
    int32_t slot_count = 0;
  };

  absl::Status Route(const Step& step, const LayerWeights& weights, int32_t layer, Activations& x);
  void GroupByExpert();
  void Trace(ChosenExperts& trace, int32_t layer, int64_t tokens) const;
  // Puts each of chosen_ into here_ or there_; what a message has no room for, into here_.
  void Divide(int32_t layer);
  // Acquires and computes the experts here_. `meanwhile` runs once the first are asked for.
  absl::Status RunHere(const Step& step, const LayerWeights& weights, int32_t layer,
                       Activations& x, absl::FunctionRef<void()> meanwhile);
  // The same for as many of here_, from `first` on, as the store holds at once: how many.
  absl::StatusOr<size_t> RunWave(const Step& step, const LayerWeights& weights, int32_t layer,
                                 size_t first, Activations& x,
                                 absl::FunctionRef<void()> meanwhile);
  // Acquires those experts, whose names are in ids_ then.
  absl::StatusOr<std::unique_ptr<ExpertBatch>> AcquireWave(const Step& step, int32_t layer,
                                                           size_t first);
  // Moves the experts that have arrived from pending_ to work_, waiting for one if none has.
  absl::Status TakeArrived(const Step& step, size_t first, ExpertBatch& batch);
  // Sends the hidden states of the experts there_; null where that fails.
  std::unique_ptr<ExpertExecution> StartThere(const Step& step, int32_t layer, Activations& x);
  // Takes the outputs of the experts there_; those that failed are then in here_.
  void TakeExecuted(const Step& step, int32_t layer, ExpertExecution& execution);
  ExpertWork WorkOf(const Chosen& chosen, const std::byte* bytes);
  void Reduce(const LayerWeights& weights, int64_t tokens, float* hidden);

  const ModelConfig& config_;
  ComputePool& pool_;
  ExpertStore& store_;
  ExpertExecutor* const executor_;
  FetchOrExecute fetch_or_execute_;
  FeedForward shared_;
  Router router_;
  Lookahead& lookahead_;

  // A slot is one token's choice of one expert, number token * used + rank.
  std::vector<float> logits_;         // [tokens, experts]
  std::vector<int32_t> choice_;       // [slots]: the expert
  std::vector<float> weight_;         // [slots]
  std::vector<int32_t> slots_;        // slot numbers, by expert, then ascending
  std::vector<int32_t> tokens_;       // of slots_
  std::vector<int32_t> row_of_slot_;  // the inverse of slots_
  std::vector<Chosen> chosen_;        // by expert

  // Positions in chosen_: of experts computed here, and on the second host.
  std::vector<size_t> here_, there_;
  bool executing_ = false;            // the last absent experts were computed there
  std::vector<ExpertId> ids_;
  std::vector<size_t> pending_, arrived_;  // positions in the wave
  std::vector<ExpertWork> work_;
  ExpertMlp mlp_;
  std::vector<float> output_;         // [slots, dim], in the order of slots_
  std::vector<float> shared_output_;  // [tokens, dim]

  // What is sent: the tokens that chose an expert of there_, and each expert's among those.
  std::vector<int32_t> sent_row_;     // [tokens]; -1: not sent
  std::vector<float> sent_;           // [rows, dim]
  std::vector<int32_t> sent_tokens_;
  std::vector<TokensOfExpert> sent_experts_;
  absl::Time sent_at_;
};

}  // namespace odmoe
