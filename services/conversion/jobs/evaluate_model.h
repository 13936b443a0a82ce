// How well a model predicts a text.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "services/conversion/jobs/conversion_runner.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Opens `spec.model` and scores the text file `spec.text`, as plain text, in windows of 2,048 tokens
// or the model's context, where that is less; each window starts anew. The result's metrics:
// "perplexity", exp of the mean negative log-probability over all tokens that have one before them
// in their window; "tokens", their number. Progress counts the text's bytes.
// INVALID_ARGUMENT: less than two tokens, or larger than 64 MiB. CANCELLED: between two windows or
// within one. And errors of `open_model` and of LanguageModel::Score.
absl::StatusOr<StepResult> EvaluateModel(
    const OpenModelFunction& open_model, FileSystem& files, const EvaluateSpec& spec,
    const Cancellation& cancellation, const std::function<void(const JobProgress&)>& on_progress);

}  // namespace odmoe
