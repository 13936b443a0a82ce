#include "services/inference/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "services/core/generation/log_sum_exp.h"

namespace odmoe {
namespace {

// Orders by logit, ties by the lower id; total, since logits are finite.
constexpr auto kMoreLikely = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
};

absl::Status CheckLogits(absl::Span<const float> logits) {
  if (logits.empty()) return absl::InternalError("the model gave no logits");
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      return absl::InternalError(
          absl::StrFormat("logit of token %d is %g, expected a finite number", i, logits[i]));
    }
  }
  return absl::OkStatus();
}

uint64_t SystemSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

std::vector<std::pair<TokenId, float>> MostLikely(absl::Span<const float> logits, size_t count,
                                                  double log_sum) {
  std::vector<TokenId> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<TokenId>(i);
  count = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](TokenId a, TokenId b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  std::vector<std::pair<TokenId, float>> top(count);
  for (size_t i = 0; i < count; ++i) {
    top[i] = {order[i], static_cast<float>(logits[order[i]] - log_sum)};
  }
  return top;
}

}  // namespace

double LogProbability(absl::Span<const float> logits, TokenId token) {
  return logits[token] - LogSumExp(logits);
}

Sampler::Sampler(const Sampling& sampling)
    : sampling_(sampling), random_(sampling.seed.has_value() ? *sampling.seed : SystemSeed()) {}

absl::StatusOr<Draw> Sampler::Next(absl::Span<const float> logits, const DrawReport& report) {
  if (absl::Status finite = CheckLogits(logits); !finite.ok()) return finite;
  // max_element gives the first of equals, the lowest id.
  const auto best = std::max_element(logits.begin(), logits.end());
  Draw draw;
  draw.token = sampling_.temperature == 0.0f ? static_cast<TokenId>(best - logits.begin())
                                             : DrawToken(logits, *best);
  if (report.logprob) {
    const double log_sum = LogSumExp(logits);
    draw.logprob = static_cast<float>(logits[draw.token] - log_sum);
    draw.top_logprobs = MostLikely(logits, static_cast<size_t>(report.top_logprobs), log_sum);
  }
  return draw;
}

TokenId Sampler::DrawToken(absl::Span<const float> logits, float max_logit) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const double scaled = (double{logits[i]} - max_logit) / sampling_.temperature;
    candidates_.push_back({std::exp(scaled), logits[i], static_cast<TokenId>(i)});
  }
  KeepTopK();
  KeepTopP();
  KeepMinP();
  return Pick();
}

void Sampler::KeepTopK() {
  const size_t k = static_cast<size_t>(sampling_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), kMoreLikely);
  candidates_.resize(k);
  // nth_element leaves an order that depends on the library; sums must not.
  std::sort(candidates_.begin(), candidates_.end(), kMoreLikely);
}

void Sampler::KeepTopP() {
  if (sampling_.top_p >= 1.0f) return;
  const double wanted = TotalWeight() * double{sampling_.top_p};
  // Few tokens usually carry most of the weight: order them a block at a time.
  constexpr size_t kFirstBlock = 64;
  double sum = 0.0;
  size_t ordered = 0;
  for (size_t block = kFirstBlock; ordered < candidates_.size(); block *= 4) {
    const size_t end = std::min(ordered + block, candidates_.size());
    std::partial_sort(candidates_.begin() + ordered, candidates_.begin() + end, candidates_.end(),
                      kMoreLikely);
    for (; ordered < end; ++ordered) {
      sum += candidates_[ordered].weight;
      if (sum >= wanted) {
        candidates_.resize(ordered + 1);
        return;
      }
    }
  }
}

void Sampler::KeepMinP() {
  if (sampling_.min_p <= 0.0f) return;
  // The most likely token weighs exp(0) = 1.
  const double least = sampling_.min_p;
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& c) { return c.weight < least; }),
                    candidates_.end());
}

TokenId Sampler::Pick() {
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  const double target = uniform * TotalWeight();
  double sum = 0.0;
  for (const Candidate& candidate : candidates_) {
    sum += candidate.weight;
    if (sum > target) return candidate.token;
  }
  // Not reached but for a product that rounds up to the total: the last with any weight.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(),
                                 [](const Candidate& c) { return c.weight > 0.0; });
  return last->token;
}

double Sampler::TotalWeight() const {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  return total;
}

}  // namespace odmoe
