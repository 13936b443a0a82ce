#include "services/expert_storage/policy/shadow_policies.h"

#include <utility>

namespace odmoe {

ShadowPolicies::ShadowPolicies(std::shared_ptr<const PolicyLayers> layers, PolicyKind in_use,
                               uint64_t capacity)
    : visits_(layers), capacity_(capacity), at_hand_(layers->expert_count()) {
  for (const PolicyKind kind : AllPolicyKinds()) {
    if (kind == in_use) continue;
    Shadow shadow;
    shadow.kind = kind;
    shadow.policy = MakeEvictionPolicy(kind, layers);
    shadow.residents.resize(layers->expert_count());
    shadows_.push_back(std::move(shadow));
  }
}

void ShadowPolicies::Demanded(uint64_t client, int64_t expert) {
  std::vector<int64_t>& visit = under_way_[client];
  if (visits_.Begins(client, expert)) {
    Follow(client, visit);
    visit.clear();
  }
  visit.push_back(expert);
}

void ShadowPolicies::ClientGone(uint64_t client) {
  if (const auto visit = under_way_.find(client); visit != under_way_.end()) {
    Follow(client, visit->second);
    under_way_.erase(visit);
  }
  visits_.ClientGone(client);
  for (Shadow& shadow : shadows_) shadow.policy->ClientGone(client);
}

void ShadowPolicies::Follow(uint64_t client, const std::vector<int64_t>& visit) {
  demands_ += visit.size();
  for (const int64_t expert : visit) at_hand_[expert] = true;
  for (Shadow& shadow : shadows_) FollowWith(shadow, client, visit);
  for (const int64_t expert : visit) at_hand_[expert] = false;
}

void ShadowPolicies::FollowWith(Shadow& shadow, uint64_t client,
                                const std::vector<int64_t>& visit) {
  Shrink(shadow, capacity_, visit.size());
  for (const int64_t expert : visit) {
    shadow.policy->Demanded(client, expert);
    shadow.hits += shadow.residents[expert] ? 1 : 0;
  }
  for (const int64_t expert : visit) {
    if (shadow.residents[expert] || capacity_ == 0) continue;
    if (!Shrink(shadow, capacity_ - 1, visit.size())) continue;
    shadow.policy->Inserted(expert, kDefaultTenant, Arrival::kDemanded);
    shadow.residents[expert] = true;
    ++shadow.resident_count;
  }
}

bool ShadowPolicies::Shrink(Shadow& shadow, uint64_t most, size_t visit_size) {
  for (size_t tries = 0; shadow.resident_count > most; ++tries) {
    const int64_t victim = shadow.policy->Victim(kAnyTenant);
    if (victim < 0) return false;
    if (at_hand_[victim]) {
      if (tries > visit_size) return false;
      shadow.policy->Skipped(victim);
      continue;
    }
    shadow.policy->Removed(victim);
    shadow.residents[victim] = false;
    --shadow.resident_count;
    tries = 0;
  }
  return true;
}

std::vector<ShadowPolicyHits> ShadowPolicies::Hits() const {
  std::vector<ShadowPolicyHits> hits;
  for (const Shadow& shadow : shadows_) {
    hits.push_back({std::string(PolicyKindName(shadow.kind)), demands_, shadow.hits});
  }
  return hits;
}

uint64_t ShadowPolicies::bookkeeping_bytes() const {
  uint64_t bytes = visits_.bookkeeping_bytes() + at_hand_.capacity() / 8;
  for (const Shadow& shadow : shadows_) {
    bytes += shadow.policy->bookkeeping_bytes() + shadow.residents.capacity() / 8;
  }
  for (const auto& [client, visit] : under_way_) bytes += visit.capacity() * sizeof(int64_t);
  return bytes;
}

}  // namespace odmoe
