// How a step of a conversion tells how far it is, and learns that it should stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "converter/convert.h"
#include "services/core/base/cancellation.h"

namespace odmoe {

// One step's progress. Not thread-safe.
class StepProgress {
 public:
  using Callback = std::function<void(const ConvertProgress&)>;

  // Silent and never cancelled.
  StepProgress() = default;
  // `cancellation` and `callback` may be null; both outlive this.
  StepProgress(ConvertProgress first, const Cancellation* cancellation, const Callback* callback);

  // What is written from now on belongs to `item`.
  void Begin(std::string item);
  // `bytes` more of this step's output are written. CANCELLED: asked to stop.
  absl::Status Advance(uint64_t bytes);

 private:
  ConvertProgress progress_;
  const Cancellation* cancellation_ = nullptr;
  const Callback* callback_ = nullptr;
};

}  // namespace odmoe
