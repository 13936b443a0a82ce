#include "services/conversion/jobs/evaluate_model.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/conversion/jobs/progress_meter.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTextBytes = 64 << 20;
constexpr size_t kWindowTokens = 2048;

}  // namespace

absl::StatusOr<StepResult> EvaluateModel(
    const OpenModelFunction& open_model, FileSystem& files, const EvaluateSpec& spec,
    const Cancellation& cancellation,
    const std::function<void(const JobProgress&)>& on_progress) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(files, spec.text, kMaxTextBytes));
  ODMOE_ASSIGN_OR_RETURN(const auto model, open_model(spec.model));
  ODMOE_ASSIGN_OR_RETURN(const ModelInfo info, model->Info());
  ODMOE_ASSIGN_OR_RETURN(
      const std::vector<TokenId> tokens,
      model->Tokenize(text, {.add_special = false, .parse_special = false}));
  if (tokens.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.text, ": ", tokens.size(), " tokens, at least 2 are needed"));
  }
  const size_t window =
      std::max<size_t>(2, std::min(kWindowTokens, size_t(std::max(0, info.context_length))));
  ProgressMeter meter({text.size()});
  ConvertProgress progress;
  progress.step = "evaluate";
  progress.step_number = 1;
  progress.step_count = 1;
  progress.total_bytes = text.size();
  double sum = 0.0;
  size_t scored = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += window) {
    progress.done_bytes = text.size() * begin / tokens.size();
    progress.item = absl::StrCat("token ", begin);
    on_progress(meter.Update(progress, absl::Now()));
    if (cancellation.cancelled()) return absl::CancelledError("asked to stop");
    const size_t end = std::min(tokens.size(), begin + window);
    if (end - begin < 2) break;  // nothing precedes a token alone
    ScoreRequest request;
    request.prompt.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    ODMOE_ASSIGN_OR_RETURN(const ScoreResult result,
                           model->Score(request, {.cancellation = &cancellation}));
    for (size_t i = 1; i < result.logprobs.size(); ++i) sum -= result.logprobs[i];
    scored += end - begin - 1;
  }
  progress.done_bytes = text.size();
  progress.item.clear();
  on_progress(meter.Update(progress, absl::Now()));
  StepResult result;
  result.metrics["perplexity"] = std::exp(sum / double(scored));
  result.metrics["tokens"] = double(scored);
  return result;
}

}  // namespace odmoe
