// In a file of its own, so that a program that brings its own functions links no converter.
#include "converter/convert.h"
#include "services/conversion/jobs/local_job_queue.h"

namespace odmoe {

absl::StatusOr<std::unique_ptr<JobQueue>> OpenLocalJobQueue(const LocalJobQueueOptions& options) {
  return OpenLocalJobQueue(options, ConversionFunctions{PlanConversion, RunConversion});
}

}  // namespace odmoe
