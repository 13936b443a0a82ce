// How well a model predicts a text, and how far it is from a base model: figures of the tokens
// scored, as the reference perplexity tool defines them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// A mean, and its standard error; 0 where there are too few values for one.
struct Estimate {
  double value = 0.0;
  double error = 0.0;
};

// Of -ln p of the tokens scored.
class PerplexityMeter {
 public:
  void Add(double negative_logprob) {
    sum_ += negative_logprob;
    sum_of_squares_ += negative_logprob * negative_logprob;
    ++count_;
  }
  int64_t count() const { return count_; }
  // The mean of -ln p.
  Estimate Mean() const;
  // exp of it; the error is sqrt(variance / (count - 1)) * perplexity.
  Estimate Perplexity() const;

 private:
  double sum_ = 0.0;
  double sum_of_squares_ = 0.0;
  int64_t count_ = 0;
};

// A sample's shape: percentiles between two values are interpolated.
struct Percentiles {
  double minimum = 0.0, p0_1 = 0.0, p1 = 0.0, p5 = 0.0, p10 = 0.0, p25 = 0.0, median = 0.0,
         p75 = 0.0, p90 = 0.0, p95 = 0.0, p99 = 0.0, p99_9 = 0.0, maximum = 0.0;
};

// A model Q against a base model, over the same tokens. Probabilities from 0 to 1.
struct DivergenceReport {
  Estimate perplexity;       // of Q
  Estimate base_perplexity;
  Estimate log_ratio;  // ln (perplexity / base_perplexity); errors here and below know that the
  Estimate ratio;            // two are correlated
  Estimate difference;
  double correlation = 0.0;  // of the two models' ln p

  Estimate kld;              // mean of sum over the vocabulary of p_base (ln p_base - ln p)
  Percentiles kld_percentiles;
  Estimate delta_p;          // mean of p - p_base of the text's own tokens
  Percentiles delta_p_percentiles;
  Estimate rms_delta_p;
  Estimate same_top;         // share of positions where both have the same most likely token
  std::vector<float> klds;   // of each position, ascending
};

// Gathers a DivergenceReport, position by position.
class DivergenceMeter {
 public:
  // One position: the base's log-probabilities and this model's logits, both over the vocabulary,
  // LogSumExp(logits), and the token that follows. Of the base only log-probabilities above `floor`
  // count, since a saved file keeps none below.
  void Add(absl::Span<const float> base_logprobs, float floor, absl::Span<const float> logits,
           double log_sum, TokenId token);

  int64_t count() const { return static_cast<int64_t>(klds_.size()); }
  // Requires a position.
  DivergenceReport Report() const;

 private:
  PerplexityMeter nll_;
  PerplexityMeter base_nll_;
  double sum_of_products_ = 0.0;  // nll times base nll
  std::vector<float> klds_;
  std::vector<float> delta_ps_;
  int64_t same_top_ = 0;
};

}  // namespace odmoe
