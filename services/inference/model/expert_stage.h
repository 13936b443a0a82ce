// The routed and shared experts of one layer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_store.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/core/kernels/mat_mul.h"
#include "services/inference/model/config.h"
#include "services/inference/model/feed_forward.h"
#include "services/inference/model/lookahead.h"
#include "services/inference/model/router.h"
#include "services/inference/model/step.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// Routes, asks the store for the chosen experts, computes what is there while the rest arrives, and
// adds up in routing order, so that the order of arrival leaves no trace in the result.
// Not thread-safe: keeps working memory.
class ExpertStage {
 public:
  // The references must outlive the stage. At most `max_tokens` tokens a step.
  ExpertStage(const ModelConfig& config, ComputePool& pool, ExpertStore& store,
              Lookahead& lookahead, int64_t max_tokens);

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
  void Trace(ExpertTrace& trace, int32_t layer, int64_t tokens) const;
  // Acquires and computes the experts chosen_[first, first + count). `meanwhile` runs once they are
  // asked for.
  absl::Status RunWave(const Step& step, const LayerWeights& weights, int32_t layer, size_t first,
                       size_t count, Activations& x, absl::FunctionRef<void()> meanwhile);
  // Waits for an expert until it comes, or nobody wants it any more.
  static absl::Status AwaitArrival(const Step& step, ExpertBatch& batch, size_t position);
  // Moves the experts that have arrived from pending_ to arrived_, waiting for one if none has.
  absl::Status TakeArrived(const Step& step, ExpertBatch& batch);
  void ComputeArrived(const LayerWeights& weights, size_t first, Activations& x);
  void Reduce(const LayerWeights& weights, int64_t tokens, float* hidden);

  const ModelConfig& config_;
  ComputePool& pool_;
  ExpertStore& store_;
  FeedForward shared_;
  Router router_;
  Lookahead& lookahead_;

  // A slot is one token's choice of one expert, number token * used + rank.
  std::vector<float> logits_;         // [tokens, experts]
  std::vector<int32_t> choice_;       // [slots]: the expert
  std::vector<float> weight_;         // [slots]
  std::vector<int32_t> slots_;        // slot numbers, by expert, then ascending
  std::vector<Chosen> chosen_;        // by expert
  std::vector<ExpertId> ids_;

  // Experts are computed in order of arrival; their rows follow each other in that order.
  struct Arrived {
    size_t position = 0;  // in the wave
    const std::byte* bytes = nullptr;
  };
  std::vector<size_t> pending_;       // positions in the wave
  std::vector<Arrived> arrived_;
  int64_t rows_done_ = 0;
  std::vector<int32_t> row_of_slot_;  // [slots]
  std::vector<const std::byte*> w1_rows_, w3_rows_;  // activations, gathered
  std::vector<float> gate_, up_;      // [slots, expert_ffn]
  std::vector<float> output_;         // [slots, dim], by row
  std::vector<float> shared_output_;  // [tokens, dim]
  Activations inner_;
  std::vector<Product> products_;
};

}  // namespace odmoe
