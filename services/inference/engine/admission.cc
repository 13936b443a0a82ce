#include "services/inference/engine/admission.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/units.h"
#include "services/inference/engine/turns.h"

namespace odmoe {

absl::StatusOr<Admission::Grant> Admission::Admit(uint64_t bytes, const CallOptions& call) {
  if (bytes > budget_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the request needs ", FormatBytes(bytes), " of KV cache, all requests have ",
                     FormatBytes(budget_bytes_)));
  }
  absl::MutexLock lock(&mutex_);
  const auto fits = [this, bytes]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return bytes <= budget_bytes_ - used_bytes_;
  };
  if (!waiting_.empty() || !fits()) {
    if (static_cast<int>(waiting_.size()) >= max_waiting_) {
      return absl::ResourceExhaustedError(
          absl::StrCat(waiting_.size(), " requests wait already, as many as may; retry later"));
    }
    const int64_t ticket = next_ticket_++;
    const auto place = waiting_.insert(waiting_.end(), ticket);
    const auto first_and_fits = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return waiting_.front() == ticket && fits();
    };
    const absl::Status status = AwaitUnlessEnded(mutex_, absl::Condition(&first_and_fits), call);
    waiting_.erase(place);
    if (!status.ok()) return status;
  }
  used_bytes_ += bytes;
  return Grant(this, bytes);
}

void Admission::Return(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  used_bytes_ -= bytes;
}

uint64_t Admission::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return used_bytes_;
}

int Admission::waiting() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(waiting_.size());
}

}  // namespace odmoe
