// One forward pass: some consecutive tokens of one sequence.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/base/cancellation.h"
#include "services/core/generation/language_model.h"
#include "services/inference/model/expert_predictor.h"
#include "services/inference/model/kv_cache.h"

namespace odmoe {

// What one pass is to do, for whom, and until when. Owns nothing.
struct Step {
  absl::Span<const TokenId> tokens;     // those that follow the cache's
  KvCache* cache = nullptr;
  absl::Time deadline = absl::InfiniteFuture();
  const Cancellation* cancellation = nullptr;  // may be null
  ExpertPredictor* predictor = nullptr;        // may be null: no prediction
  ExpertUse* use = nullptr;                    // counts are added
  ChosenExperts* trace = nullptr;              // may be null: not asked for

  // CANCELLED, DEADLINE_EXCEEDED: as asked.
  absl::Status CheckWanted() const {
    if (cancellation != nullptr && cancellation->cancelled()) {
      return absl::CancelledError("the request was cancelled");
    }
    if (deadline != absl::InfiniteFuture() && absl::Now() >= deadline) {
      return absl::DeadlineExceededError("the request's deadline has passed");
    }
    return absl::OkStatus();
  }
};

}  // namespace odmoe
