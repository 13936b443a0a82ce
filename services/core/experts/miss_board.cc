#include "services/core/experts/miss_board.h"

#include <utility>

namespace odmoe {

void MissBoard::Deliver(size_t i, absl::StatusOr<uint32_t> slot) {
  absl::MutexLock lock(&mutex_);
  if (abandoned_ || outcomes_[i].has_value()) {
    if (slot.ok()) page_.Unpin(*slot);
    return;
  }
  outcomes_[i] = std::move(slot);
}

void MissBoard::FailRest(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  for (auto& outcome : outcomes_) {
    if (!outcome.has_value()) outcome = status;
  }
}

bool MissBoard::Ready(size_t i) const {
  absl::MutexLock lock(&mutex_);
  return outcomes_[i].has_value();
}

std::optional<absl::StatusOr<uint32_t>> MissBoard::Await(size_t i, absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  const auto answered = [this, i]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return outcomes_[i].has_value();
  };
  mutex_.AwaitWithDeadline(absl::Condition(&answered), deadline);
  return outcomes_[i];
}

bool MissBoard::Abandon() {
  absl::MutexLock lock(&mutex_);
  bool unanswered = false;
  for (auto& outcome : outcomes_) {
    unanswered |= !outcome.has_value();
    if (outcome.has_value() && outcome->ok()) page_.Unpin(**outcome);
  }
  abandoned_ = true;
  return unanswered;
}

}  // namespace odmoe
