// Belady's offline optimum: evicts the expert whose next demand is farthest in the future.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "services/expert_storage/policy/scored_policy.h"

namespace odmoe {

// Knows all demands beforehand, and so is only for replays: what no policy can better. 8 bytes a
// demand.
class BeladyPolicy final : public ScoredPolicy {
 public:
  // `demands`: the experts in the order in which Demanded will be called with them, but for
  // the order within a visit.
  BeladyPolicy(std::shared_ptr<const PolicyLayers> layers, absl::Span<const int64_t> demands);

  uint64_t bookkeeping_bytes() const override;

 private:
  void OnVisit(uint64_t, int32_t) override {}
  void OnDemand(uint64_t client, int64_t expert) override;
  double Score(int64_t expert) const override;

  std::vector<uint64_t> first_use_;      // of each expert, an entry of uses_; one past the last
  std::vector<uint64_t> next_use_;       // of each expert, an entry of uses_
  std::vector<uint64_t> uses_;           // numbers of demands, by expert, ascending
};

}  // namespace odmoe
