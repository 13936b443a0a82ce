#include "converter/evaluate/text_statistics.h"

#include <algorithm>
#include <cmath>

namespace odmoe {
namespace {

// As many values a standard error needs to mean something.
constexpr int64_t kFewest = 10;

Estimate MeanOf(double sum, double sum_of_squares, int64_t count) {
  const auto n = static_cast<double>(count);
  if (count < 1) return {};
  const double mean = sum / n;
  const double variance = sum_of_squares / n - mean * mean;
  return {mean, variance > 0.0 && count > kFewest ? std::sqrt(variance / (n - 1.0)) : 0.0};
}

template <typename Value>
Estimate MeanOf(absl::Span<const float> values, const Value& value) {
  double sum = 0.0;
  double sum_of_squares = 0.0;
  for (const float v : values) {
    const double x = value(static_cast<double>(v));
    sum += x;
    sum_of_squares += x * x;
  }
  return MeanOf(sum, sum_of_squares, static_cast<int64_t>(values.size()));
}

Percentiles PercentilesOf(absl::Span<const float> sorted) {
  const auto at = [sorted](double fraction) {
    const double place = fraction * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, sorted.size() - 1);
    const double share = place - static_cast<double>(low);
    return (1.0 - share) * sorted[low] + share * sorted[high];
  };
  return {.minimum = at(0.0), .p0_1 = at(0.001), .p1 = at(0.01), .p5 = at(0.05), .p10 = at(0.1),
          .p25 = at(0.25), .median = at(0.5), .p75 = at(0.75), .p90 = at(0.9), .p95 = at(0.95),
          .p99 = at(0.99), .p99_9 = at(0.999), .maximum = at(1.0)};
}

size_t IndexOfLargest(absl::Span<const float> values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

Estimate PerplexityMeter::Mean() const { return MeanOf(sum_, sum_of_squares_, count_); }

Estimate PerplexityMeter::Perplexity() const {
  const Estimate mean = Mean();
  const double perplexity = std::exp(mean.value);
  return {perplexity, perplexity * mean.error};
}

void DivergenceMeter::Add(absl::Span<const float> base_logprobs, float floor,
                          absl::Span<const float> logits, double log_sum, TokenId token) {
  const double nll = log_sum - logits[token];
  const double base_nll = -static_cast<double>(base_logprobs[token]);
  nll_.Add(nll);
  base_nll_.Add(base_nll);
  sum_of_products_ += nll * base_nll;
  delta_ps_.push_back(static_cast<float>(std::exp(-nll) - std::exp(-base_nll)));
  double kld = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(base_logprobs[i] > floor)) continue;
    const double base = base_logprobs[i];
    kld += std::exp(base) * (base - (logits[i] - log_sum));
  }
  klds_.push_back(static_cast<float>(kld));
  if (IndexOfLargest(logits) == IndexOfLargest(base_logprobs)) ++same_top_;
}

DivergenceReport DivergenceMeter::Report() const {
  DivergenceReport report;
  const auto n = static_cast<double>(count());
  const Estimate log_q = nll_.Mean();
  const Estimate log_base = base_nll_.Mean();
  report.perplexity = nll_.Perplexity();
  report.base_perplexity = base_nll_.Perplexity();
  const double covariance =
      count() < kFewest ? 0.0 : (sum_of_products_ / n - log_q.value * log_base.value) / (n - 1.0);
  const double errors = log_q.error * log_base.error;
  report.correlation = errors > 0.0 ? covariance / errors : 0.0;
  // Rounding can leave the variance of two equal samples' difference below zero.
  const auto error_of_difference = [](const Estimate& a, const Estimate& b, double both) {
    return std::sqrt(std::max(0.0, a.error * a.error + b.error * b.error - 2.0 * both));
  };
  report.log_ratio = {log_q.value - log_base.value,
                      error_of_difference(log_q, log_base, covariance)};
  report.ratio.value = std::exp(report.log_ratio.value);
  report.ratio.error = report.ratio.value * report.log_ratio.error;
  report.difference = {
      report.perplexity.value - report.base_perplexity.value,
      error_of_difference(report.perplexity, report.base_perplexity,
                          report.perplexity.value * report.base_perplexity.value * covariance)};

  const auto itself = [](double v) { return v; };
  report.kld = MeanOf(absl::MakeConstSpan(klds_), itself);
  report.klds = klds_;
  std::sort(report.klds.begin(), report.klds.end());
  report.kld_percentiles = PercentilesOf(report.klds);
  report.delta_p = MeanOf(absl::MakeConstSpan(delta_ps_), itself);
  std::vector<float> delta_ps = delta_ps_;
  std::sort(delta_ps.begin(), delta_ps.end());
  report.delta_p_percentiles = PercentilesOf(delta_ps);
  const Estimate square = MeanOf(absl::MakeConstSpan(delta_ps_), [](double v) { return v * v; });
  report.rms_delta_p.value = std::sqrt(square.value);
  if (square.value > 0.0) {
    report.rms_delta_p.error = 0.5 / report.rms_delta_p.value * square.error;
  }
  const double same = static_cast<double>(same_top_) / n;
  report.same_top = {same, count() > 1 ? std::sqrt(same * (1.0 - same) / (n - 1.0)) : 0.0};
  return report;
}

}  // namespace odmoe
