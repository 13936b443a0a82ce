#include "services/expert_storage/policy/policy_layers.h"

#include <algorithm>
#include <limits>

namespace odmoe {

PolicyLayers::PolicyLayers(absl::Span<const int32_t> counts, int32_t demand)
    : first_{0}, demand_(std::max(1, demand)) {
  first_.reserve(counts.size() + 1);
  for (size_t layer = 0; layer < counts.size(); ++layer) {
    first_.push_back(first_.back() + counts[layer]);
    layer_of_.insert(layer_of_.end(), counts[layer], static_cast<int32_t>(layer));
    largest_layer_ = std::max(largest_layer_, counts[layer]);
  }
}

std::shared_ptr<const PolicyLayers> PolicyLayers::Of(const ExpertCatalog& catalog,
                                                     uint64_t demand) {
  std::vector<int32_t> counts;
  counts.reserve(catalog.layers().size());
  for (const LayerExperts& layer : catalog.layers()) counts.push_back(layer.expert_count);
  const uint64_t most = std::numeric_limits<int32_t>::max();
  return std::make_shared<PolicyLayers>(counts, static_cast<int32_t>(std::min(demand, most)));
}

}  // namespace odmoe
