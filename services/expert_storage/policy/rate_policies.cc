#include "services/expert_storage/policy/rate_policies.h"

#include <algorithm>
#include <utility>

#include "services/expert_storage/policy/policy_state.h"

namespace odmoe {

RatePolicy::RatePolicy(std::shared_ptr<const PolicyLayers> layers, float decay)
    : ScoredPolicy(std::move(layers)),
      decay_(decay),
      rates_(this->layers().expert_count(), 0.0f),
      last_visits_(this->layers().expert_count(), 0),
      visit_counts_(this->layers().layer_count(), 0) {}

uint64_t RatePolicy::bookkeeping_bytes() const {
  return ScoredPolicy::bookkeeping_bytes() + rates_.capacity() * sizeof(rates_[0]) +
         last_visits_.capacity() * sizeof(last_visits_[0]) +
         visit_counts_.capacity() * sizeof(visit_counts_[0]);
}

void RatePolicy::OnVisit(uint64_t, int32_t layer) {
  ++visit_counts_[layer];
  for (int64_t expert = layers().first(layer); expert < layers().end(layer); ++expert) {
    rates_[expert] *= decay_;
  }
}

void RatePolicy::OnDemand(uint64_t, int64_t expert) {
  rates_[expert] += 1.0f - decay_;
  last_visits_[expert] = visit_counts_[layers().LayerOf(expert)];
}

std::string RatePolicy::SaveState() const { return FloatsToState(rates_); }

bool RatePolicy::RestoreState(absl::string_view state) {
  auto rates = FloatsFromState(state, rates_.size(), 0.0f, 1.5f);
  if (!rates) return false;
  rates_ = *std::move(rates);
  for (int32_t layer = 0; layer < layers().layer_count(); ++layer) residents().Changed(layer);
  return true;
}

double LfuPolicy::Score(int64_t expert) const { return -rate(expert); }

double LfruPolicy::Score(int64_t expert) const {
  return -rate(expert) / static_cast<float>(Age(expert));
}

double NextUsePolicy::Score(int64_t expert) const {
  return layers().layer_count() * (1.0 / std::max(rate(expert), kLeastRate) - 1.0);
}

}  // namespace odmoe
