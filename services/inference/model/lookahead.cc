#include "services/inference/model/lookahead.h"

#include <algorithm>

namespace odmoe {

void Lookahead::Predict(const Step& step, int32_t layer, const float* hidden) {
  predicted_.clear();
  if (paused_ || step.predictor == nullptr || step.tokens.size() > kMaxTokens) return;
  step.predictor->Predict(layer, hidden, predicted_);
  if (predicted_.empty()) return;
  step.use->predicted += predicted_.size();
  store_.Prefetch(predicted_);
}

void Lookahead::Count(const Step& step, int32_t layer, absl::Span<const int32_t> chosen) {
  if (predicted_.empty() || predicted_.front().layer != layer) return;
  for (const int32_t expert : chosen) {
    ++step.use->predicted_of;
    const ExpertId id = {layer, expert};
    if (std::find(predicted_.begin(), predicted_.end(), id) != predicted_.end()) {
      ++step.use->predicted_right;
    }
  }
}

}  // namespace odmoe
