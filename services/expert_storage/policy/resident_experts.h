// Which experts are resident, at whose charge, and which of them scores highest.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "services/expert_storage/policy/policy_layers.h"

namespace odmoe {

// The common half of policies that evict the highest score. Scores may change by the whole layer at
// once, so there is no heap: the best of each layer is kept, and looked for again only in layers
// that changed. A look costs O(layers + experts of the layers that changed), whatever the number of
// experts. 2 bytes an expert and 24 a layer and tenant. Not thread-safe.
class ResidentExperts {
 public:
  explicit ResidentExperts(std::shared_ptr<const PolicyLayers> layers);

  bool resident(int64_t expert) const { return owner_[expert] != kAbsent; }
  void Insert(int64_t expert, int32_t tenant);
  void Remove(int64_t expert);
  void HandOver(int64_t expert, int32_t tenant);
  // Not the best again until Unskip, or until all are skipped.
  void Skip(int64_t expert);
  void Unskip();
  // Scores of the layer are not what they were.
  void Changed(int32_t layer) { ++versions_[layer]; }

  // The resident expert with the largest score(expert) + step * Distance(now, its layer), of one
  // tenant's or of all; the lowest index among equals; -1: there is none.
  template <typename Score>
  int64_t Best(int32_t tenant, int32_t now, double step, const Score& score) {
    const int64_t best = BestUnskipped(tenant, now, step, score);
    if (best >= 0 || skipped_.empty()) return best;
    Unskip();
    return BestUnskipped(tenant, now, step, score);
  }

  uint64_t bookkeeping_bytes() const;

 private:
  // Owners: a tenant, or a skipped one's, or nobody.
  static constexpr int16_t kAbsent = -1;
  static constexpr int16_t kSkipped = 0x4000;

  struct BestOfLayer {
    uint64_t version = 0;  // of the layer when this was found; 0: never
    double score = 0.0;
    int64_t expert = -1;
  };

  // The best of each layer for a tenant, kAnyTenant among them.
  std::vector<BestOfLayer>& BestOf(int32_t tenant);

  template <typename Score>
  int64_t BestUnskipped(int32_t tenant, int32_t now, double step, const Score& score) {
    std::vector<BestOfLayer>& best_of = BestOf(tenant);
    int64_t best = -1;
    double highest = -std::numeric_limits<double>::infinity();
    for (int32_t layer = 0; layer < layers_->layer_count(); ++layer) {
      BestOfLayer& best_here = best_of[layer];
      if (best_here.version != versions_[layer]) FindBest(layer, tenant, score, best_here);
      if (best_here.expert < 0) continue;
      const double value = best_here.score + step * layers_->Distance(now, layer);
      if (best >= 0 && value <= highest) continue;
      highest = value;
      best = best_here.expert;
    }
    return best;
  }

  template <typename Score>
  void FindBest(int32_t layer, int32_t tenant, const Score& score, BestOfLayer& best) const {
    best = {versions_[layer], 0.0, -1};
    if (residents_[layer] == 0) return;
    for (int64_t expert = layers_->first(layer); expert < layers_->end(layer); ++expert) {
      const int16_t owner = owner_[expert];
      if (owner < 0 || owner >= kSkipped || (tenant >= 0 && owner != tenant)) continue;
      const double value = score(expert);
      if (best.expert >= 0 && value <= best.score) continue;
      best.score = value;
      best.expert = expert;
    }
  }

  std::shared_ptr<const PolicyLayers> layers_;
  std::vector<int16_t> owner_;
  std::vector<int32_t> residents_;   // of each layer
  std::vector<uint64_t> versions_;   // of each layer
  std::vector<int64_t> skipped_;
  std::vector<std::vector<BestOfLayer>> best_;  // by tenant + 1
};

}  // namespace odmoe
