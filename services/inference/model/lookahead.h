// Prediction at work in a forward pass: asks the store early, and counts what came true.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/core/experts/expert_store.h"
#include "services/inference/model/step.h"

namespace odmoe {

// Predictions of the step under way. Not thread-safe.
class Lookahead {
 public:
  // Steps of more tokens are not predicted: between them their tokens choose most of a layer's
  // experts anyway, and what is fetched for all of them pushes out what is needed first.
  static constexpr int64_t kMaxTokens = 1;

  explicit Lookahead(ExpertStore& store) : store_(store) {}

  // Predicts the layer after `layer` from hidden [tokens, dim] and has it prefetched.
  void Predict(const Step& step, int32_t layer, const float* hidden);

  // Nothing is predicted while paused.
  void Pause(bool paused) { paused_ = paused; }

  // Compares the experts chosen in `layer` with those predicted for it, if any were.
  void Count(const Step& step, int32_t layer, absl::Span<const int32_t> chosen);

 private:
  ExpertStore& store_;
  std::vector<ExpertId> predicted_;  // of one layer; empty: none
  bool paused_ = false;
};

}  // namespace odmoe
