// Policies by how often an expert was demanded: LFU with aging, LFRU, expected next use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "services/expert_storage/policy/scored_policy.h"

namespace odmoe {

// An expert's rate is the share of its layer's visits that demanded it, the visit `a` ago weighing
// decay^a. 8 bytes an expert beside ScoredPolicy's. A visit's first demand costs O(experts of the
// layer), the others O(1); a victim what ResidentExperts says.
class RatePolicy : public ScoredPolicy {
 public:
  RatePolicy(std::shared_ptr<const PolicyLayers> layers, float decay);

  uint64_t bookkeeping_bytes() const override;
  std::string SaveState() const override;
  bool RestoreState(absl::string_view state) override;

 protected:
  void OnVisit(uint64_t client, int32_t layer) override;
  void OnDemand(uint64_t client, int64_t expert) override;

  float rate(int64_t expert) const { return rates_[expert]; }
  // Visits of the layer since the expert's last demand, that one included: at least 1.
  uint32_t Age(int64_t expert) const {
    return visit_counts_[layers().LayerOf(expert)] - last_visits_[expert] + 1;
  }

 private:
  float decay_;
  std::vector<float> rates_;
  std::vector<uint32_t> last_visits_;   // by expert
  std::vector<uint32_t> visit_counts_;  // by layer
};

// Least frequently used, with aging: evicts the lowest rate.
class LfuPolicy final : public RatePolicy {
 public:
  explicit LfuPolicy(std::shared_ptr<const PolicyLayers> layers)
      : RatePolicy(std::move(layers), kDecay) {}

 private:
  double Score(int64_t expert) const override;
  // Half a vote after 34 visits: long, for next-use is the policy of short memory.
  static constexpr float kDecay = 0.98f;
};

// Least frequently and recently used: evicts the lowest rate divided by the visits since the last
// demand, so that neither what was popular long ago nor what came once stays.
class LfruPolicy final : public RatePolicy {
 public:
  explicit LfruPolicy(std::shared_ptr<const PolicyLayers> layers)
      : RatePolicy(std::move(layers), kDecay) {}

 private:
  double Score(int64_t expert) const override;
  static constexpr float kDecay = 0.98f;
};

// Evicts the largest expected time to the next use, in layers: the distance to the expert's layer,
// and as many further rounds of all layers as a demand of this rate takes on average.
class NextUsePolicy final : public RatePolicy {
 public:
  explicit NextUsePolicy(std::shared_ptr<const PolicyLayers> layers)
      : RatePolicy(std::move(layers), kDecay) {}

 private:
  double Score(int64_t expert) const override;
  double step() const override { return 1.0; }
  static constexpr float kDecay = 0.9f;
  static constexpr float kLeastRate = 1e-4f;
};

}  // namespace odmoe
