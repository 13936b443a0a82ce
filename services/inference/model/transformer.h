// The model: tokens in, logits out.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "services/core/experts/expert_store.h"
#include "services/core/kernels/activations.h"
#include "services/core/kernels/compute_pool.h"
#include "services/inference/model/attention.h"
#include "services/inference/model/config.h"
#include "services/inference/model/expert_stage.h"
#include "services/inference/model/feed_forward.h"
#include "services/inference/model/lookahead.h"
#include "services/inference/model/step.h"
#include "services/inference/model/weights.h"

namespace odmoe {

// Forward passes over one model, with the working memory of one pass at a time. A token's hidden
// state does not depend, to the bit, on how its sequence is cut into steps, on the threads, on
// prediction, or on when experts arrive. Not thread-safe.
class Transformer {
 public:
  // The references, and the executor, must outlive the transformer. A step has at most `max_tokens`
  // tokens.
  Transformer(const ModelConfig& config, const ModelWeights& weights, ExpertStore& store,
              ComputePool& pool, int64_t max_tokens, const RemoteExperts& remote = {});

  // Runs the step's tokens through all layers and adds them to its cache. On an error the cache
  // stays as it was, and the step may be tried again.
  // INVALID_ARGUMENT: no tokens, too many, or one outside the vocabulary. CANCELLED,
  // DEADLINE_EXCEEDED: as asked, within a layer. Otherwise the store's errors.
  absl::Status Forward(const Step& step);

  // Logits [count, vocabulary] after the tokens [first, first + count) of the last step.
  void Logits(int64_t first, int64_t count, float* out);

  int64_t max_tokens() const { return max_tokens_; }
  const ModelConfig& config() const { return config_; }

 private:
  absl::Status CheckStep(const Step& step) const;
  absl::Status Embed(absl::Span<const TokenId> tokens);
  absl::Status RunFeedForward(const Step& step, const LayerWeights& weights, int32_t layer);
  // normed = rms norm of hidden rows [first, first + count), and activations of it.
  void Normalize(const std::vector<float>& weight, int64_t first, int64_t count);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  ComputePool& pool_;
  const int64_t max_tokens_;
  Lookahead lookahead_;
  const std::unique_ptr<AttentionStage> attention_;
  FeedForward dense_;
  ExpertStage experts_;
  std::vector<float> hidden_;  // [tokens, dim], the residual stream
  std::vector<float> normed_;  // [tokens, dim]
  std::vector<float> output_;  // [tokens, dim]
  Activations activations_;
};

}  // namespace odmoe
