#include "services/expert_storage/policy/scored_policy.h"

#include <utility>

namespace odmoe {

void ScoredPolicy::Demanded(uint64_t client, int64_t expert) {
  now_ = layers_->LayerOf(expert);
  if (visits_.Begins(client, expert)) {
    residents_.Unskip();  // what was pinned for the last layer may have been released
    OnVisit(client, now_);
  }
  OnDemand(client, expert);
  residents_.Changed(now_);
}

void ScoredPolicy::Inserted(int64_t expert, int32_t tenant, Arrival arrival) {
  residents_.Insert(expert, tenant);
  OnInsert(expert, arrival);
}

int64_t ScoredPolicy::Victim(int32_t tenant) {
  BeforeScores();
  return residents_.Best(tenant, now_, step(), [this](int64_t expert) { return Score(expert); });
}

bool ScoredPolicy::ExpectedSooner(int64_t resident, int64_t wished) {
  if (step() == 0.0) return false;
  BeforeScores();
  const auto distance = [this](int64_t expert) {
    return static_cast<double>(layers_->Distance(now_, layers_->LayerOf(expert)));
  };
  return Score(resident) + distance(resident) < distance(wished);
}

std::vector<EvictionPolicy::Rank> ScoredPolicy::Ranks() {
  BeforeScores();
  std::vector<Rank> ranks;
  // Of equals the lowest index goes first.
  for (int64_t expert = layers_->expert_count(); expert-- > 0;) {
    if (!residents_.resident(expert)) continue;
    const int32_t distance = layers_->Distance(now_, layers_->LayerOf(expert));
    ranks.push_back({Score(expert) + step() * distance, expert});
  }
  return ranks;
}

void ScoredPolicy::ClientGone(uint64_t client) {
  visits_.ClientGone(client);
  OnClientGone(client);
}

}  // namespace odmoe
