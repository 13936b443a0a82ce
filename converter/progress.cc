#include "converter/progress.h"

#include <utility>

#include "services/core/base/status_macros.h"

namespace odmoe {

StepProgress::StepProgress(ConvertProgress first, const Cancellation* cancellation,
                           const Callback* callback)
    : progress_(std::move(first)), cancellation_(cancellation), callback_(callback) {}

void StepProgress::Resume(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  progress_.done_bytes += bytes;
  progress_.resumed_bytes += bytes;
}

absl::Status StepProgress::Advance(absl::string_view item, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  // Another thread's call may have been what made someone ask.
  ODMOE_RETURN_IF_ERROR(CheckCancelled());
  progress_.done_bytes += bytes;
  if (callback_ != nullptr && *callback_) {
    progress_.item = std::string(item);
    (*callback_)(progress_);
  }
  return CheckCancelled();
}

absl::Status StepProgress::CheckCancelled() const {
  if (cancellation_ == nullptr || !cancellation_->cancelled()) return absl::OkStatus();
  return absl::CancelledError("the conversion was asked to stop");
}

bool StepProgress::keeps_work() const {
  return cancellation_ != nullptr && cancellation_->keeps_work();
}

}  // namespace odmoe
