// In a file of its own, so that a program that brings its own functions links no converter.
#include "converter/convert.h"
#include "services/conversion/jobs/local_job_queue.h"

namespace odmoe {

absl::StatusOr<std::unique_ptr<HostedJobQueue>> OpenLocalJobQueue(
    const LocalJobQueueOptions& options) {
  return OpenLocalJobQueue(options, ConversionFunctions{.plan = PlanConversion,
                                                        .run = RunConversion,
                                                        .merge = MergeModel,
                                                        .verify = VerifyModel,
                                                        .open_model = options.open_model,
                                                        .plan_quantization = PlanQuantization,
                                                        .run_quantization = RunQuantization});
}

}  // namespace odmoe
