#include "clients/cpp/retry_patience.h"

#include <algorithm>

namespace odmoe {
namespace {

constexpr absl::Duration kLongestPause = absl::Seconds(2);
constexpr absl::Duration kNap = absl::Milliseconds(50);  // how soon a cancellation is noticed

}  // namespace

void RetryPatience::Renew() {
  give_up_ = absl::Now() + kPatience;
  pause_ = kFirstPause;
}

void RetryPatience::Pause() {
  for (const absl::Time end = absl::Now() + pause_; absl::Now() < end && !cancelled();) {
    absl::SleepFor(kNap);
  }
  pause_ = std::min(2 * pause_, kLongestPause);
}

}  // namespace odmoe
