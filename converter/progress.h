// How a step of a conversion tells how far it is, and learns that it should stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "converter/convert.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// One step's progress. Thread-safe: the callback is called from any of the threads that do the
// work, one call at a time, and sees the bytes only grow.
class StepProgress {
 public:
  using Callback = std::function<void(const ConvertProgress&)>;

  // Silent and never cancelled.
  StepProgress() = default;
  // `cancellation` and `callback` may be null; both outlive this.
  StepProgress(ConvertProgress first, const Cancellation* cancellation, const Callback* callback);

  // `bytes` of this step's output are there from an earlier run. Reported with the next Advance.
  void Resume(uint64_t bytes);
  // `bytes` more of this step's output are written, of `item`. CANCELLED: asked to stop.
  absl::Status Advance(absl::string_view item, uint64_t bytes);
  // CANCELLED: asked to stop.
  absl::Status CheckCancelled() const;
  // Whether one who was asked to stop should leave what could be gone on with.
  bool keeps_work() const;

 private:
  absl::Mutex mutex_;
  ConvertProgress progress_ ABSL_GUARDED_BY(mutex_);
  const Cancellation* cancellation_ = nullptr;
  const Callback* callback_ = nullptr;
};

}  // namespace odmoe
