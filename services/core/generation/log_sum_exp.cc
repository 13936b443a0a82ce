#include "services/core/generation/log_sum_exp.h"

#include <algorithm>
#include <cmath>

namespace odmoe {

double LogSumExp(absl::Span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return max + std::log(sum);
}

}  // namespace odmoe
