// The experts of a model by layer, as policies see them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"

namespace odmoe {

// Layers are counted from 0 without gaps, experts densely over all of them, as the catalog does.
// Immutable; shared by the policies of a store.
class PolicyLayers {
 public:
  // `counts`: experts of each layer, each above 0. `demand`: experts of a layer that one token asks
  // for, at least 1.
  PolicyLayers(absl::Span<const int32_t> counts, int32_t demand);
  static std::shared_ptr<const PolicyLayers> Of(const ExpertCatalog& catalog, uint64_t demand);

  int32_t layer_count() const { return static_cast<int32_t>(first_.size()) - 1; }
  int64_t expert_count() const { return first_.back(); }
  int32_t largest_layer() const { return largest_layer_; }
  int32_t demand() const { return demand_; }
  int64_t first(int32_t layer) const { return first_[layer]; }
  int64_t end(int32_t layer) const { return first_[layer + 1]; }
  int32_t size(int32_t layer) const { return static_cast<int32_t>(end(layer) - first(layer)); }
  int32_t LayerOf(int64_t expert) const { return layer_of_[expert]; }
  // Layers a token passes until it comes to `to`, seen from `from`: 1 .. layer_count().
  int32_t Distance(int32_t from, int32_t to) const {
    return to > from ? to - from : to - from + layer_count();
  }

 private:
  std::vector<int64_t> first_;  // of each layer, and one past the last
  std::vector<int32_t> layer_of_;
  int32_t largest_layer_ = 0;
  int32_t demand_;
};

}  // namespace odmoe
