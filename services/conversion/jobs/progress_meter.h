// How fast a job goes and when it will be done.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "converter/convert.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Turns a conversion's raw progress into what a client sees. The rate is an exponentially weighted
// mean with a time constant of five seconds, carried over steps; the remaining time counts the
// bytes of this step and of those to come. Not thread-safe.
class ProgressMeter {
 public:
  // `step_bytes` as in ConvertPlan.
  explicit ProgressMeter(std::vector<uint64_t> step_bytes) : step_bytes_(std::move(step_bytes)) {}

  // `now` never goes back.
  JobProgress Update(const ConvertProgress& progress, absl::Time now);

 private:
  uint64_t RemainingBytes(const ConvertProgress& progress) const;

  const std::vector<uint64_t> step_bytes_;
  int step_number_ = 0;
  uint64_t last_bytes_ = 0;
  absl::Time last_time_ = absl::InfinitePast();
  double bytes_per_second_ = 0.0;
};

}  // namespace odmoe
