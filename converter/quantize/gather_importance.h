// An importance matrix out of a text that a model reads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/evaluate/evaluate_text.h"
#include "converter/quantize/importance_sums.h"
#include "services/core/base/cancellation.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

struct GatherImportanceOptions {
  int32_t chunk_tokens = 512;  // EvaluateTextOptions::kMinChunkTokens to the model's context
  int64_t max_chunks = 0;      // 0: as many as the text has
  bool with_output = false;    // the output head's inputs too; `sums` must keep them
};

// Lets `model` read the text in chunks as EvaluateText cuts them, all tokens of each; returns their
// number. `sums` is the observer the model was opened with.
// INVALID_ARGUMENT: as EvaluateText. DATA_LOSS: an input that is not a number. CANCELLED. Errors of
// the model. FAILED_PRECONDITION: the model told `sums` of nothing.
absl::StatusOr<int64_t> GatherImportance(
    LanguageModel& model, absl::string_view text, const ImportanceSums& sums,
    const GatherImportanceOptions& options, const Cancellation* cancellation,
    const std::function<void(const TextProgress&)>& on_progress);

}  // namespace odmoe
