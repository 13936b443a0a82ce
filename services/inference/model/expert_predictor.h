// Who guesses which experts a coming layer will want. Implementations are in shadow/.
#pragma once

#include <cstdint>
#include <vector>

#include "services/core/experts/expert_id.h"

namespace odmoe {

// Names the experts of layer `layer + 1` before that layer is reached. A prediction only ever
// decides what is fetched early; the choice of experts is the model's. Owned by one thread at a
// time.
class ExpertPredictor {
 public:
  virtual ~ExpertPredictor() = default;

  // `hidden` [dim] is one token's residual stream in layer `layer`, after attention and before the
  // feed-forward network. Replaces `experts`, the likeliest first; leaves none where the next layer
  // has no routed experts.
  virtual void Predict(int32_t layer, const float* hidden, std::vector<ExpertId>& experts) = 0;
};

}  // namespace odmoe
