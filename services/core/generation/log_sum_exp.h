// Logits to log-probabilities.
#pragma once

#include "absl/types/span.h"

namespace odmoe {

// ln sum exp(logits), in double, and so the natural log-probability of token t is
// logits[t] - LogSumExp(logits). NaN or infinite where a logit is. Requires a logit.
double LogSumExp(absl::Span<const float> logits);

}  // namespace odmoe
