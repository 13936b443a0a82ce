// A quantize step: makes the models, has each continue a text, and measures them.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "converter/quantize/quantize.h"
#include "services/conversion/jobs/conversion_runner.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// The same quantization; `file_system` may be null.
QuantizeOptions ToQuantizeOptions(const QuantizeSpec& spec, FileSystem* file_system);

// Quantizes; then each model of a batch, unless its trial is skipped, and each model that is to be
// measured, is opened and has to generate a few tokens of finite log-probability. A model that does
// not fails the step, by its type's name. A GGUF file is opened as a model directory
// "<path>.trial", which is made of it and removed. Metrics as StepResult says; progress has the
// phases "quantize", "try" and "evaluate".
// Errors as of PlanQuantization, RunQuantization, `open_model`, EvaluateModel. UNIMPLEMENTED:
// models are not run here. DATA_LOSS: a model generated nothing, or what is no number. CANCELLED.
absl::StatusOr<StepResult> QuantizeModels(
    const ConversionFunctions& functions, FileSystem* file_system, const QuantizeSpec& spec,
    const Cancellation& cancellation, const std::function<void(const JobProgress&)>& on_progress);

}  // namespace odmoe
