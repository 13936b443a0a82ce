#include "services/expert_storage/policy/belady_policy.h"

#include <utility>

namespace odmoe {

BeladyPolicy::BeladyPolicy(std::shared_ptr<const PolicyLayers> layers,
                           absl::Span<const int64_t> demands)
    : ScoredPolicy(std::move(layers)),
      first_use_(this->layers().expert_count() + 1, 0),
      uses_(demands.size()) {
  for (const int64_t expert : demands) ++first_use_[expert + 1];
  for (size_t i = 1; i < first_use_.size(); ++i) first_use_[i] += first_use_[i - 1];
  next_use_ = first_use_;
  for (size_t i = 0; i < demands.size(); ++i) uses_[next_use_[demands[i]]++] = i;
  next_use_ = first_use_;
}

uint64_t BeladyPolicy::bookkeeping_bytes() const {
  return ScoredPolicy::bookkeeping_bytes() +
         (first_use_.capacity() + next_use_.capacity() + uses_.capacity()) * sizeof(uint64_t);
}

// The experts of a visit may come in another order than was told: each demand is its expert's next.
void BeladyPolicy::OnDemand(uint64_t, int64_t expert) {
  if (next_use_[expert] < first_use_[expert + 1]) ++next_use_[expert];
}

double BeladyPolicy::Score(int64_t expert) const {
  const uint64_t next = next_use_[expert];
  const bool used_again = next < first_use_[expert + 1];
  return static_cast<double>(used_again ? uses_[next] : uses_.size());
}

}  // namespace odmoe
