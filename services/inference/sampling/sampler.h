// Draws the next token from a model's logits.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// A token drawn.
struct Draw {
  TokenId token = 0;
  float logprob = 0.0f;  // natural, before temperature; 0 unless asked for
  std::vector<std::pair<TokenId, float>> top_logprobs;  // the most likely first
};

// What to report beside the token.
struct DrawReport {
  bool logprob = false;
  int32_t top_logprobs = 0;  // the so many most likely tokens, with logprob
};

// One request's draws. The tokens are ordered by logit, ties by the lower id; each limit keeps a
// beginning of that order: top_k the first k; top_p the fewest whose probabilities, renormalized
// over what top_k kept, sum to at least p; min_p those at least min_p times as likely as the first.
// One uniform number a token, from std::mt19937_64 (the standard fixes its output) as
// (x >> 11) * 2^-53, picks among what is left; sums run in double in a fixed order. So a seed gives
// the same tokens on every machine whose exp() rounds alike.
//
// Owned by one thread at a time.
class Sampler {
 public:
  // `sampling` is within its bounds (CheckSampling). Without a seed one is taken from the system.
  explicit Sampler(const Sampling& sampling);

  // Draws from logits [vocabulary]. Temperature 0 takes the first of the order and no random
  // number. INTERNAL: no logits, or one that is NaN or infinite.
  absl::StatusOr<Draw> Next(absl::Span<const float> logits, const DrawReport& report = {});

 private:
  struct Candidate {
    double weight;  // exp((logit - largest) / temperature)
    float logit;
    TokenId token;
  };

  TokenId DrawToken(absl::Span<const float> logits, float max_logit);
  void KeepTopK();
  void KeepTopP();
  void KeepMinP();
  TokenId Pick();
  double TotalWeight() const;

  Sampling sampling_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;  // scratch
};

// The natural log-probability of `token` under logits [vocabulary].
double LogProbability(absl::Span<const float> logits, TokenId token);

}  // namespace odmoe
