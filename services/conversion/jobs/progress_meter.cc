#include "services/conversion/jobs/progress_meter.h"

#include <cmath>

namespace odmoe {
namespace {

constexpr absl::Duration kTimeConstant = absl::Seconds(5);
// Shorter spans say more about one write's buffering than about the disk.
constexpr absl::Duration kMinimumSpan = absl::Milliseconds(100);

}  // namespace

JobProgress ProgressMeter::Update(const ConvertProgress& progress, absl::Time now) {
  if (progress.step_number != step_number_ || progress.done_bytes < last_bytes_) {
    step_number_ = progress.step_number;
    last_bytes_ = progress.done_bytes;
    last_time_ = now;
  } else if (const absl::Duration span = now - last_time_; span >= kMinimumSpan) {
    const double rate = double(progress.done_bytes - last_bytes_) / absl::ToDoubleSeconds(span);
    const double weight = 1.0 - std::exp(-absl::FDivDuration(span, kTimeConstant));
    bytes_per_second_ =
        bytes_per_second_ == 0.0 ? rate : bytes_per_second_ + weight * (rate - bytes_per_second_);
    last_bytes_ = progress.done_bytes;
    last_time_ = now;
  }
  JobProgress result;
  result.phase = progress.step;
  result.phase_number = progress.step_number;
  result.phase_count = progress.step_count;
  result.done_bytes = progress.done_bytes;
  result.total_bytes = progress.total_bytes;
  result.item = progress.item;
  result.bytes_per_second = bytes_per_second_;
  if (bytes_per_second_ > 0.0) {
    result.eta = absl::Seconds(double(RemainingBytes(progress)) / bytes_per_second_);
  }
  return result;
}

uint64_t ProgressMeter::RemainingBytes(const ConvertProgress& progress) const {
  uint64_t remaining =
      progress.total_bytes > progress.done_bytes ? progress.total_bytes - progress.done_bytes : 0;
  for (size_t step = progress.step_number > 0 ? progress.step_number : 0; step < step_bytes_.size();
       ++step) {
    remaining += step_bytes_[step];
  }
  return remaining;
}

}  // namespace odmoe
