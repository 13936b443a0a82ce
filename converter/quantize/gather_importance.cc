#include "converter/quantize/gather_importance.h"

#include <vector>

#include "services/core/base/status_macros.h"

namespace odmoe {

absl::StatusOr<int64_t> GatherImportance(
    LanguageModel& model, absl::string_view text, const ImportanceSums& sums,
    const GatherImportanceOptions& options, const Cancellation* cancellation,
    const std::function<void(const TextProgress&)>& on_progress) {
  ODMOE_ASSIGN_OR_RETURN(const ModelInfo info, model.Info());
  ODMOE_ASSIGN_OR_RETURN(const PlainTokens plain, TokenizePlainly(model, text));
  TextProgress progress;
  ODMOE_ASSIGN_OR_RETURN(progress.total_chunks,
                         CountChunks(info, plain.tokens.size(), options.chunk_tokens,
                                     options.max_chunks));
  CallOptions call;
  call.cancellation = cancellation;
  // The head is computed for the last token only where nobody asks for its inputs.
  const int64_t first = options.with_output ? 0 : options.chunk_tokens - 1;
  for (; progress.done_chunks < progress.total_chunks; ++progress.done_chunks) {
    if (on_progress) on_progress(progress);
    if (cancellation != nullptr && cancellation->cancelled()) {
      return absl::CancelledError("asked to stop");
    }
    const auto begin = plain.tokens.begin() + progress.done_chunks * options.chunk_tokens;
    std::vector<TokenId> tokens(begin, begin + options.chunk_tokens);
    if (plain.bos.has_value()) tokens[0] = *plain.bos;
    ODMOE_RETURN_IF_ERROR(model.Logits(
        tokens, first, call, [](int64_t, absl::Span<const float>) { return absl::OkStatus(); }));
    ODMOE_RETURN_IF_ERROR(sums.status());
  }
  if (on_progress) on_progress(progress);
  if (sums.size() > 0) return progress.total_chunks;
  return absl::FailedPreconditionError("the model was not opened with these sums as its observer");
}

}  // namespace odmoe
