// How well a model predicts a text, as a step of a job.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "services/conversion/jobs/conversion_runner.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Opens `spec.model`, and `spec.base_model` where there is one, and evaluates the text file
// `spec.text` (see converter/evaluate/evaluate_text.h); StepResult says which metrics. Progress
// counts the text's bytes, chunk by chunk.
// INVALID_ARGUMENT: a text larger than 64 MiB. And errors of `open_model` and of EvaluateText.
absl::StatusOr<StepResult> EvaluateModel(
    const OpenModelFunction& open_model, FileSystem& files, const EvaluateSpec& spec,
    const Cancellation& cancellation, const std::function<void(const JobProgress&)>& on_progress);

}  // namespace odmoe
