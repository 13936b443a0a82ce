// Evicts the resident expert with the highest score.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "services/expert_storage/policy/eviction_policy.h"
#include "services/expert_storage/policy/policy_layers.h"
#include "services/expert_storage/policy/resident_experts.h"
#include "services/expert_storage/policy/visit_tracker.h"

namespace odmoe {

// What the policies by score share: who is resident, and where each client is. Scores may change
// with every visit of their layer.
class ScoredPolicy : public EvictionPolicy {
 public:
  explicit ScoredPolicy(std::shared_ptr<const PolicyLayers> layers)
      : layers_(std::move(layers)), residents_(layers_), visits_(layers_) {}

  void Demanded(uint64_t client, int64_t expert) final;
  void Inserted(int64_t expert, int32_t tenant, Arrival arrival) final;
  void HandedOver(int64_t expert, int32_t tenant) final { residents_.HandOver(expert, tenant); }
  void Skipped(int64_t expert) final { residents_.Skip(expert); }
  void Removed(int64_t expert) final { residents_.Remove(expert); }
  int64_t Victim(int32_t tenant) final;
  bool ExpectedSooner(int64_t resident, int64_t wished) final;
  std::vector<Rank> Ranks() final;
  void ClientGone(uint64_t client) final;
  uint64_t bookkeeping_bytes() const override {
    return residents_.bookkeeping_bytes() + visits_.bookkeeping_bytes();
  }

 protected:
  // A client's visit of a layer begins; before the first of its demands.
  virtual void OnVisit(uint64_t client, int32_t layer) = 0;
  virtual void OnDemand(uint64_t client, int64_t expert) = 0;
  virtual void OnInsert(int64_t, Arrival) {}
  // Scores are about to be asked for.
  virtual void BeforeScores() {}
  // The higher, the sooner it goes; step() is added for each layer until the expert's is visited.
  // It changes only with a demand in the expert's layer, or where residents() is told.
  virtual double Score(int64_t expert) const = 0;
  // 1: scores are times to the next use, in layers. 0: they are not.
  virtual double step() const { return 0.0; }
  virtual void OnClientGone(uint64_t) {}

  const PolicyLayers& layers() const { return *layers_; }
  const std::shared_ptr<const PolicyLayers>& shared_layers() const { return layers_; }
  ResidentExperts& residents() { return residents_; }
  // The layer demanded last.
  int32_t now() const { return now_; }

 private:
  std::shared_ptr<const PolicyLayers> layers_;
  ResidentExperts residents_;
  VisitTracker visits_;
  int32_t now_ = 0;
};

}  // namespace odmoe
