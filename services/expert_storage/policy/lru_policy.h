// Evicts the expert whose last demand is longest ago.
#pragma once

#include <cstdint>
#include <vector>

#include "services/expert_storage/policy/eviction_policy.h"

namespace odmoe {

// A ring for each tenant, threaded through an array: 16 bytes an expert, O(1) a call, O(tenants)
// for the oldest of all. An expert handed over counts as demanded then.
class LruPolicy final : public EvictionPolicy {
 public:
  // `expert_count` below 2^31.
  explicit LruPolicy(int64_t expert_count);

  void Demanded(uint64_t client, int64_t expert) override;
  void Inserted(int64_t expert, int32_t tenant, Arrival arrival) override;
  void HandedOver(int64_t expert, int32_t tenant) override;
  void Skipped(int64_t expert) override { Demanded(0, expert); }
  void Removed(int64_t expert) override;
  int64_t Victim(int32_t tenant) override;
  std::vector<Rank> Ranks() override;
  uint64_t bookkeeping_bytes() const override { return nodes_.capacity() * sizeof(Node); }

 private:
  // An expert's place in its tenant's ring. After the experts comes each tenant's sentinel, which
  // closes the ring: older than the sentinel is the newest expert, newer than it the oldest.
  struct Node {
    int32_t newer = kAbsent;
    int32_t older = kAbsent;
    // Of the last demand, 0 for what is restored; orders the rings among each other.
    uint64_t time : 48 = 0;
    uint64_t tenant : 16 = 0;
  };
  static constexpr int32_t kAbsent = -1;

  bool resident(int64_t expert) const { return nodes_[expert].older != kAbsent; }
  void LinkNewest(int64_t expert);
  void LinkOldest(int64_t expert);
  int32_t SentinelOf(int64_t expert) const {
    return expert_count_ + static_cast<int32_t>(nodes_[expert].tenant);
  }
  void Unlink(int64_t expert);

  int32_t expert_count_;
  uint64_t clock_ = 0;
  std::vector<Node> nodes_;
};

}  // namespace odmoe
