#include "services/conversion/jobs/evaluate_model.h"

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "converter/evaluate/evaluate_text.h"
#include "services/conversion/jobs/progress_meter.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTextBytes = 64 << 20;

StepResult ResultOf(const TextReport& report) {
  StepResult result;
  auto& metrics = result.metrics;
  metrics["perplexity"] = report.perplexity.value;
  metrics["perplexity_error"] = report.perplexity.error;
  metrics["tokens"] = double(report.scored);
  metrics["chunks"] = double(report.chunks);
  metrics["tokens_per_second"] = report.tokens_per_second;
  if (!report.divergence.has_value()) return result;
  const DivergenceReport& divergence = *report.divergence;
  metrics["base_perplexity"] = divergence.base_perplexity.value;
  metrics["mean_kld"] = divergence.kld.value;
  metrics["median_kld"] = divergence.kld_percentiles.median;
  metrics["kld_99"] = divergence.kld_percentiles.p99;
  metrics["max_kld"] = divergence.kld_percentiles.maximum;
  metrics["same_top"] = divergence.same_top.value;
  metrics["rms_delta_p"] = divergence.rms_delta_p.value;
  return result;
}

}  // namespace

absl::StatusOr<StepResult> EvaluateModel(
    const OpenModelFunction& open_model, FileSystem& files, const EvaluateSpec& spec,
    const Cancellation& cancellation,
    const std::function<void(const JobProgress&)>& on_progress) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(files, spec.text, kMaxTextBytes));
  ODMOE_ASSIGN_OR_RETURN(const std::shared_ptr<LanguageModel> model, open_model(spec.model));
  std::shared_ptr<LanguageModel> base;
  if (!spec.base_model.empty()) {
    ODMOE_ASSIGN_OR_RETURN(base, open_model(spec.base_model));
  }
  EvaluateTextOptions options;
  options.chunk_tokens = spec.chunk_tokens;
  options.max_chunks = spec.max_chunks;
  options.base = base.get();
  options.file_system = &files;
  ProgressMeter meter({text.size()});
  ConvertProgress progress;
  progress.step = "evaluate";
  progress.step_number = progress.step_count = 1;
  progress.total_bytes = text.size();
  ODMOE_ASSIGN_OR_RETURN(
      const TextReport report,
      EvaluateText(*model, text, options, &cancellation, [&](const TextProgress& done) {
        progress.done_bytes = text.size() / std::max<uint64_t>(1, done.total_chunks) *
                              static_cast<uint64_t>(done.done_chunks);
        progress.item = absl::StrCat("chunk ", done.done_chunks, " of ", done.total_chunks);
        if (done.done_chunks == done.total_chunks) {
          progress.done_bytes = text.size();
          progress.item.clear();
        }
        on_progress(meter.Update(progress, absl::Now()));
      }));
  return ResultOf(report);
}

}  // namespace odmoe
