#include "converter/progress.h"

#include <utility>

namespace odmoe {

StepProgress::StepProgress(ConvertProgress first, const Cancellation* cancellation,
                           const Callback* callback)
    : progress_(std::move(first)), cancellation_(cancellation), callback_(callback) {}

void StepProgress::Begin(std::string item) { progress_.item = std::move(item); }

absl::Status StepProgress::Advance(uint64_t bytes) {
  progress_.done_bytes += bytes;
  if (callback_ != nullptr && *callback_) (*callback_)(progress_);
  if (cancellation_ != nullptr && cancellation_->cancelled()) {
    return absl::CancelledError("the conversion was asked to stop");
  }
  return absl::OkStatus();
}

}  // namespace odmoe
