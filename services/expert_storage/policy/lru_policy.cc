#include "services/expert_storage/policy/lru_policy.h"

#include <algorithm>

namespace odmoe {

LruPolicy::LruPolicy(int64_t expert_count)
    : expert_count_(static_cast<int32_t>(expert_count)), nodes_(expert_count) {}

void LruPolicy::Demanded(uint64_t, int64_t expert) {
  if (!resident(expert)) return;
  Unlink(expert);
  LinkNewest(expert);
}

void LruPolicy::Inserted(int64_t expert, int32_t tenant, Arrival arrival) {
  while (nodes_.size() <= static_cast<size_t>(expert_count_ + tenant)) {
    const int32_t sentinel = static_cast<int32_t>(nodes_.size());
    nodes_.push_back({sentinel, sentinel});
  }
  nodes_[expert].tenant = static_cast<uint16_t>(tenant);
  if (arrival == Arrival::kRestored) {
    LinkOldest(expert);
  } else {
    LinkNewest(expert);
  }
}

void LruPolicy::HandedOver(int64_t expert, int32_t tenant) {
  Unlink(expert);
  Inserted(expert, tenant, Arrival::kDemanded);
}

void LruPolicy::Removed(int64_t expert) {
  Unlink(expert);
  nodes_[expert].newer = nodes_[expert].older = kAbsent;
}

int64_t LruPolicy::Victim(int32_t tenant) {
  int64_t victim = -1;
  const int64_t first = expert_count_ + (tenant == kAnyTenant ? 0 : tenant);
  const int64_t end = tenant == kAnyTenant ? static_cast<int64_t>(nodes_.size()) : first + 1;
  for (int64_t sentinel = first; sentinel < end; ++sentinel) {
    if (sentinel >= static_cast<int64_t>(nodes_.size())) break;
    const int32_t oldest = nodes_[sentinel].newer;
    if (oldest == sentinel) continue;
    if (victim < 0 || nodes_[oldest].time < nodes_[victim].time) victim = oldest;
  }
  return victim;
}

void LruPolicy::LinkNewest(int64_t expert) {
  Node& node = nodes_[expert];
  const int32_t self = static_cast<int32_t>(expert);
  const int32_t sentinel = SentinelOf(expert);
  const int32_t newest = nodes_[sentinel].older;
  node.newer = sentinel;
  node.older = newest;
  node.time = ++clock_;
  nodes_[newest].newer = self;
  nodes_[sentinel].older = self;
}

void LruPolicy::LinkOldest(int64_t expert) {
  Node& node = nodes_[expert];
  const int32_t self = static_cast<int32_t>(expert);
  const int32_t sentinel = SentinelOf(expert);
  const int32_t oldest = nodes_[sentinel].newer;
  node.newer = oldest;
  node.older = sentinel;
  node.time = 0;
  nodes_[oldest].older = self;
  nodes_[sentinel].newer = self;
}

std::vector<EvictionPolicy::Rank> LruPolicy::Ranks() {
  std::vector<Rank> ranks;
  for (int32_t sentinel = expert_count_; sentinel < static_cast<int32_t>(nodes_.size());
       ++sentinel) {
    // What has the same time, as restored experts have, is in its ring's order.
    for (int32_t at = nodes_[sentinel].older; at != sentinel; at = nodes_[at].older) {
      ranks.push_back({-static_cast<double>(nodes_[at].time), at});
    }
  }
  return ranks;
}

void LruPolicy::Unlink(int64_t expert) {
  const Node& node = nodes_[expert];
  nodes_[node.newer].older = node.older;
  nodes_[node.older].newer = node.newer;
}

}  // namespace odmoe
