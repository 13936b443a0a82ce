#include "tests/support/faulty_expert_source.h"

#include <utility>

namespace odmoe {

void ReadFaults::Fail(ExpertId id, absl::Status status) {
  absl::MutexLock lock(&mutex_);
  failures_[id] = std::move(status);
}

void ReadFaults::Corrupt(ExpertId id) {
  absl::MutexLock lock(&mutex_);
  corrupted_.insert(id);
}

void ReadFaults::Heal(ExpertId id) {
  absl::MutexLock lock(&mutex_);
  failures_.erase(id);
  corrupted_.erase(id);
}

void ReadFaults::Hold() {
  absl::MutexLock lock(&mutex_);
  holding_ = true;
}

void ReadFaults::Hang(ExpertId id) {
  absl::MutexLock lock(&mutex_);
  hanging_.insert(id);
}

void ReadFaults::Release() {
  std::vector<HeldRead> released;
  {
    absl::MutexLock lock(&mutex_);
    holding_ = false;
    hanging_.clear();
    released.swap(held_);
  }
  for (const HeldRead& read : released) read.go();
}

void ReadFaults::ReleaseOldest() {
  HeldRead oldest;
  {
    absl::MutexLock lock(&mutex_);
    oldest = std::move(held_.front());
    held_.erase(held_.begin());
  }
  oldest.go();
}

bool ReadFaults::AwaitHeld(size_t count) {
  absl::MutexLock lock(&mutex_);
  const auto enough = [this, count]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return held_.size() >= count;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Minutes(1));
}

uint64_t ReadFaults::reads(ExpertId id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = reads_.find(id);
  return found == reads_.end() ? 0 : found->second;
}

uint64_t ReadFaults::reads() const {
  absl::MutexLock lock(&mutex_);
  uint64_t total = 0;
  for (const auto& [id, count] : reads_) total += count;
  return total;
}

std::vector<ExpertId> ReadFaults::order() const {
  absl::MutexLock lock(&mutex_);
  return order_;
}

std::shared_ptr<const ReadControl> ReadFaults::control(ExpertId id) const {
  absl::MutexLock lock(&mutex_);
  for (const HeldRead& read : held_) {
    if (read.id == id) return read.control;
  }
  return nullptr;
}

void ReadFaults::Begin(ExpertId id, std::shared_ptr<const ReadControl> control,
                       std::function<void()> go) {
  {
    absl::MutexLock lock(&mutex_);
    ++reads_[id];
    order_.push_back(id);
    if (holding_ || hanging_.contains(id)) {
      held_.push_back({id, std::move(control), std::move(go)});
      return;
    }
  }
  go();
}

absl::Status ReadFaults::Failure(ExpertId id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = failures_.find(id);
  return found == failures_.end() ? absl::OkStatus() : found->second;
}

bool ReadFaults::Corrupted(ExpertId id) const {
  absl::MutexLock lock(&mutex_);
  return corrupted_.contains(id);
}

void FaultyExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl> control, Done done) {
  faults_->Begin(id, control, [this, id, destination, control, done = std::move(done)] {
    absl::Status failure = faults_->Failure(id);
    if (control != nullptr && control->cancelled()) failure = absl::CancelledError("given up");
    if (!failure.ok()) {
      done(failure);
      return;
    }
    real_->Read(id, destination, control, [this, id, destination, done](absl::Status status) {
      if (status.ok() && faults_->Corrupted(id)) destination[0] ^= std::byte{1};
      done(std::move(status));
    });
  });
}

}  // namespace odmoe
