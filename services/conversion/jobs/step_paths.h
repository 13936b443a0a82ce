// The paths in a step's specification.
#pragma once

#include <string>
#include <vector>

#include "services/conversion/jobs/job_store.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// One of a step's paths, in place.
struct StepPath {
  const char* field;  // "source", as messages name it
  std::string* path;  // within the step
  bool written;
};

// Every path of a step that is not empty, in an order that stays. Points into `step`.
std::vector<StepPath> PathsOf(StepSpec& step);

// The step with its paths as resolved; `paths` is what PathsOf's became.
StepSpec WithPaths(StepSpec step, const std::vector<PathUse>& paths);

}  // namespace odmoe
