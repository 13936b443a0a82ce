// How long a client goes on trying to reach a service that went away.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// Pauses between the attempts at one call, each twice as long as the one before, until half a
// minute has passed without progress. Not thread-safe.
class RetryPatience {
 public:
  // `cancellation` may be null; it outlives this.
  explicit RetryPatience(const Cancellation* cancellation) : cancellation_(cancellation) {}

  // Something got through: patience and pauses start anew.
  void Renew();

  // No attempt has been repeated since the last progress.
  bool fresh() const { return pause_ == kFirstPause; }
  bool cancelled() const { return cancellation_ != nullptr && cancellation_->cancelled(); }
  bool exhausted() const { return absl::Now() >= give_up_ || cancelled(); }

  // Waits before the next attempt; shorter when cancelled meanwhile.
  void Pause();

 private:
  static constexpr absl::Duration kPatience = absl::Seconds(30);
  static constexpr absl::Duration kFirstPause = absl::Milliseconds(200);

  const Cancellation* const cancellation_;
  absl::Time give_up_ = absl::Now() + kPatience;
  absl::Duration pause_ = kFirstPause;
};

}  // namespace odmoe
