// What other policies would have hit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/core/experts/store_telemetry.h"
#include "services/expert_storage/policy/make_policy.h"
#include "services/expert_storage/policy/visit_tracker.h"

namespace odmoe {

// Follows the demands with policies of which each keeps a working set in its mind alone: no I/O, no
// memory for experts. All have the whole cache to themselves, know no quotas, prefetches or pins
// but those of the visit at hand, and what they miss is there at once. A demand costs each of them
// what the policy costs. Not thread-safe: the store calls it under its lock.
class ShadowPolicies {
 public:
  // Shadows of every kind but the one in use. `capacity`: experts the cache holds.
  ShadowPolicies(std::shared_ptr<const PolicyLayers> layers, PolicyKind in_use, uint64_t capacity);

  void Demanded(uint64_t client, int64_t expert);
  void ClientGone(uint64_t client);
  // The cache holds more or fewer experts from now on.
  void SetCapacity(uint64_t capacity) { capacity_ = capacity; }

  // Of all demands but those of visits under way.
  std::vector<ShadowPolicyHits> Hits() const;
  uint64_t bookkeeping_bytes() const;

 private:
  struct Shadow {
    PolicyKind kind;
    std::unique_ptr<EvictionPolicy> policy;
    std::vector<bool> residents;
    uint64_t resident_count = 0;
    uint64_t hits = 0;
  };

  void Follow(uint64_t client, const std::vector<int64_t>& visit);
  void FollowWith(Shadow& shadow, uint64_t client, const std::vector<int64_t>& visit);
  // Gives up experts, none of the visit's, until there are no more than `most`; false: there are.
  bool Shrink(Shadow& shadow, uint64_t most, size_t visit_size);

  VisitTracker visits_;
  uint64_t capacity_;
  uint64_t demands_ = 0;
  std::vector<Shadow> shadows_;
  std::vector<bool> at_hand_;  // experts of the visit followed
  absl::flat_hash_map<uint64_t, std::vector<int64_t>> under_way_;  // visits, by client
};

}  // namespace odmoe
