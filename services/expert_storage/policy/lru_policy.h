// Evicts the expert whose last demand is longest ago.
#pragma once

#include <cstdint>
#include <vector>

#include "services/expert_storage/policy/eviction_policy.h"

namespace odmoe {

// A list threaded through an array, 8 bytes an expert.
class LruPolicy final : public EvictionPolicy {
 public:
  // `expert_count` below 2^31.
  explicit LruPolicy(int64_t expert_count);

  void Inserted(int64_t expert) override { LinkFirst(expert); }
  void Touched(int64_t expert) override;
  void Skipped(int64_t expert) override { Touched(expert); }
  void Removed(int64_t expert) override { Unlink(expert); }
  int64_t Victim() const override;

 private:
  // Neighbours in the ring of resident experts. The sentinel at `expert_count` closes it: older
  // than the sentinel is the newest expert, newer than it the oldest.
  struct Link {
    int32_t newer = 0;
    int32_t older = 0;
  };

  void LinkFirst(int64_t expert);
  void Unlink(int64_t expert);

  int32_t sentinel_;
  std::vector<Link> links_;
};

}  // namespace odmoe
