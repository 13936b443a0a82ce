#include "services/expert_storage/policy/resident_experts.h"

#include <utility>

namespace odmoe {

ResidentExperts::ResidentExperts(std::shared_ptr<const PolicyLayers> layers)
    : layers_(std::move(layers)),
      owner_(layers_->expert_count(), kAbsent),
      residents_(layers_->layer_count(), 0),
      versions_(layers_->layer_count(), 1) {}

void ResidentExperts::Insert(int64_t expert, int32_t tenant) {
  owner_[expert] = static_cast<int16_t>(tenant);
  ++residents_[layers_->LayerOf(expert)];
  Changed(layers_->LayerOf(expert));
}

void ResidentExperts::Remove(int64_t expert) {
  owner_[expert] = kAbsent;
  --residents_[layers_->LayerOf(expert)];
  Changed(layers_->LayerOf(expert));
}

void ResidentExperts::HandOver(int64_t expert, int32_t tenant) {
  owner_[expert] = static_cast<int16_t>(tenant);
  Changed(layers_->LayerOf(expert));
}

void ResidentExperts::Skip(int64_t expert) {
  if (owner_[expert] >= kSkipped) return;
  owner_[expert] = static_cast<int16_t>(owner_[expert] + kSkipped);
  skipped_.push_back(expert);
  Changed(layers_->LayerOf(expert));
}

void ResidentExperts::Unskip() {
  for (const int64_t expert : skipped_) {
    // It may have gone meanwhile, and come again.
    if (owner_[expert] < kSkipped) continue;
    owner_[expert] = static_cast<int16_t>(owner_[expert] - kSkipped);
    Changed(layers_->LayerOf(expert));
  }
  skipped_.clear();
}

std::vector<ResidentExperts::BestOfLayer>& ResidentExperts::BestOf(int32_t tenant) {
  const size_t index = static_cast<size_t>(tenant + 1);
  if (best_.size() <= index) best_.resize(index + 1);
  if (best_[index].empty()) best_[index].resize(layers_->layer_count());
  return best_[index];
}

uint64_t ResidentExperts::bookkeeping_bytes() const {
  uint64_t bytes = owner_.capacity() * sizeof(owner_[0]) +
                   residents_.capacity() * sizeof(residents_[0]) +
                   versions_.capacity() * sizeof(versions_[0]) +
                   skipped_.capacity() * sizeof(skipped_[0]);
  for (const auto& layers : best_) bytes += layers.capacity() * sizeof(BestOfLayer);
  return bytes;
}

}  // namespace odmoe
