// The choice of experts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/inference/model/config.h"

namespace odmoe {

// Chooses each token's experts from the router's logits (DeepSeek-V3 report, section 2.1.2):
// score = gate(logit); the `used` experts with the largest score + bias, from the best groups; the
// weight is the score without the bias, normalized where the model wants it, times the scale.
// Not thread-safe: keeps working memory.
class Router {
 public:
  explicit Router(const RoutingConfig& config);

  // `logits` is [experts] and is overwritten; `bias`, [experts] or empty, steers the choice only.
  // Writes config.used experts, best first, and their weights. Ties go to the lower number.
  // False: too few of the scores are numbers.
  bool Choose(absl::Span<float> logits, absl::Span<const float> bias, int32_t* experts,
              float* weights);

  // The `count` experts that Choose would take first, were it to take so many; groups the rule
  // leaves out may limit them to fewer, whose number is returned. count <= experts.
  int32_t Rank(absl::Span<float> logits, absl::Span<const float> bias, int32_t count,
               int32_t* experts);

 private:
  int32_t Select(absl::Span<const float> scores, absl::Span<const float> bias, int32_t count,
                 int32_t* experts);
  void DropWeakGroups(bool has_bias);

  const RoutingConfig config_;
  std::vector<float> choice_;  // scores with bias; -inf: not to be chosen
  std::vector<float> group_scores_;
  std::vector<int32_t> kept_groups_;
};

}  // namespace odmoe
