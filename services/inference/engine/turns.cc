#include "services/inference/engine/turns.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace odmoe {

absl::Status AwaitUnlessEnded(absl::Mutex& mutex, const absl::Condition& condition,
                              const CallOptions& call) {
  // A Cancellation wakes nobody, so it is looked at now and then.
  constexpr absl::Duration kLook = absl::Milliseconds(10);
  while (true) {
    const absl::Time until = call.cancellation == nullptr
                                 ? call.deadline
                                 : std::min(call.deadline, absl::Now() + kLook);
    if (mutex.AwaitWithDeadline(condition, until)) return absl::OkStatus();
    if (call.cancellation != nullptr && call.cancellation->cancelled()) {
      return absl::CancelledError("the request was cancelled while it waited");
    }
    if (absl::Now() >= call.deadline) {
      return absl::DeadlineExceededError("the request's deadline passed while it waited");
    }
  }
}

absl::StatusOr<Turns::Turn> Turns::Take(const CallOptions& call) {
  absl::MutexLock lock(&mutex_);
  const int64_t ticket = next_ticket_++;
  const auto place = waiting_.insert(waiting_.end(), ticket);
  const auto first = [this, ticket]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !taken_ && waiting_.front() == ticket;
  };
  const absl::Status status = AwaitUnlessEnded(mutex_, absl::Condition(&first), call);
  waiting_.erase(place);
  if (!status.ok()) return status;
  taken_ = true;
  return Turn(this);
}

int Turns::waiting() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(waiting_.size());
}

void Turns::Pass() {
  absl::MutexLock lock(&mutex_);
  taken_ = false;
}

}  // namespace odmoe
