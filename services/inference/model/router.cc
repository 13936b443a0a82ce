#include "services/inference/model/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "services/core/kernels/simd.h"

namespace odmoe {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
// Mainline's floor under the sum of the chosen scores, the smallest normal f16.
constexpr float kSmallestSum = 6.103515625e-5f;

void ApplyGate(RoutingConfig::Gate gate, absl::Span<float> logits) {
  const auto n = static_cast<int64_t>(logits.size());
  if (gate == RoutingConfig::Gate::kSigmoid) {
    Simd().sigmoid(logits.data(), n);
  } else {
    Simd().softmax(logits.data(), 1.0f, n);
  }
}

// Takes the largest of `scores`, at most `count` times; returns how many there were. Few are taken
// of few hundred, so no heap pays.
int32_t TakeLargest(absl::Span<float> scores, int32_t count, int32_t* taken) {
  for (int32_t k = 0; k < count; ++k) {
    const auto best = std::max_element(scores.begin(), scores.end());
    if (*best == kNever) return k;
    taken[k] = static_cast<int32_t>(best - scores.begin());
    *best = kNever;
  }
  return count;
}

// How good a group is: the sum of its two best scores where the model has a selection bias
// (DeepSeek-V3), its best score where it has none (DeepSeek-V2).
float GroupScore(absl::Span<const float> scores, bool has_bias) {
  float first = kNever;
  float second = kNever;
  for (const float score : scores) {
    if (score > first) {
      second = first;
      first = score;
    } else if (score > second) {
      second = score;
    }
  }
  return has_bias && scores.size() > 1 ? first + second : first;
}

}  // namespace

Router::Router(const RoutingConfig& config)
    : config_(config),
      choice_(config.experts),
      group_scores_(config.groups),
      kept_groups_(config.groups) {}

bool Router::Choose(absl::Span<float> logits, absl::Span<const float> bias, int32_t* experts,
                    float* weights) {
  ApplyGate(config_.gate, logits);
  if (Select(logits, bias, config_.used, experts) < config_.used) return false;
  float sum = 0.0f;
  for (int32_t k = 0; k < config_.used; ++k) {
    weights[k] = logits[experts[k]];
    sum += weights[k];
  }
  const float factor =
      config_.normalize ? config_.scale / std::max(sum, kSmallestSum) : config_.scale;
  for (int32_t k = 0; k < config_.used; ++k) weights[k] *= factor;
  return true;
}

int32_t Router::Rank(absl::Span<float> logits, absl::Span<const float> bias, int32_t count,
                     int32_t* experts) {
  ApplyGate(config_.gate, logits);
  return Select(logits, bias, count, experts);
}

int32_t Router::Select(absl::Span<const float> scores, absl::Span<const float> bias, int32_t count,
                       int32_t* experts) {
  for (size_t i = 0; i < choice_.size(); ++i) {
    const float score = bias.empty() ? scores[i] : scores[i] + bias[i];
    choice_[i] = score > kNever ? score : kNever;  // what is not a number compares false
  }
  if (config_.groups > 1) DropWeakGroups(!bias.empty());
  return TakeLargest(absl::MakeSpan(choice_), count, experts);
}

void Router::DropWeakGroups(bool has_bias) {
  const size_t size = choice_.size() / group_scores_.size();
  for (size_t g = 0; g < group_scores_.size(); ++g) {
    group_scores_[g] =
        GroupScore(absl::MakeConstSpan(choice_).subspan(g * size, size), has_bias);
  }
  TakeLargest(absl::MakeSpan(group_scores_), config_.groups_used, kept_groups_.data());
  // Taken groups are marked by the score TakeLargest leaves behind.
  for (size_t g = 0; g < group_scores_.size(); ++g) {
    if (group_scores_[g] == kNever) continue;
    std::fill_n(choice_.begin() + g * size, size, kNever);
  }
}

}  // namespace odmoe
