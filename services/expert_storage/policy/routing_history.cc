#include "services/expert_storage/policy/routing_history.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace odmoe {

RoutingHistory::RoutingHistory(std::shared_ptr<const PolicyLayers> layers, int tokens, int width)
    : layers_(std::move(layers)),
      tokens_(tokens),
      width_(width),
      experts_(static_cast<size_t>(layers_->layer_count()) * tokens * width),
      counts_(static_cast<size_t>(layers_->layer_count()) * tokens),
      marks_(layers_->largest_layer()) {}

uint64_t RoutingHistory::BytesFor(const PolicyLayers& layers, int tokens, int width) {
  return static_cast<uint64_t>(layers.layer_count()) * tokens * (2 * width + 1) +
         layers.largest_layer() + sizeof(RoutingHistory);
}

void RoutingHistory::BeginToken() {
  ++token_;
  for (int32_t layer = 0; layer < layers_->layer_count(); ++layer) counts_[Row(layer, 0)] = 0;
  similarity_.fill(0.0f);
  layers_seen_ = 0.0f;
}

void RoutingHistory::BeginVisit(int32_t layer) {
  if (token_ < 0 || layer <= layer_) {
    BeginToken();
  } else {
    const float scale = added_ > 0 ? 1.0f / static_cast<float>(added_) : 0.0f;
    for (int age = 1; age <= Earlier(); ++age) {
      similarity_[age] = kMemory * (similarity_[age] + scale * common_[age]);
    }
    layers_seen_ *= kMemory;
  }
  layers_seen_ += 1.0f;
  common_.fill(0.0f);
  added_ = 0;
  layer_ = layer;
  weighed_ = false;
}

void RoutingHistory::Add(absl::Span<const int64_t> experts) {
  const int64_t first = layers_->first(layer_);
  const size_t row = Row(layer_, 0);
  for (const int64_t expert : experts) {
    const int64_t number = expert - first;
    marks_[number] = 1;
    if (counts_[row] < width_) {
      experts_[row * width_ + counts_[row]++] = static_cast<uint16_t>(number);
    }
  }
  for (int age = 1; age <= Earlier(); ++age) {
    const size_t earlier = Row(layer_, age);
    const uint16_t* numbers = &experts_[earlier * width_];
    int common = 0;
    for (int i = 0; i < counts_[earlier]; ++i) common += marks_[numbers[i]];
    common_[age] += static_cast<float>(common);
  }
  for (const int64_t expert : experts) marks_[expert - first] = 0;
  added_ += static_cast<int>(experts.size());
  weighed_ = false;
}

void RoutingHistory::Weigh() {
  if (weighed_) return;
  weighed_ = true;
  const float scale = added_ > 0 ? 1.0f / static_cast<float>(added_) : 0.0f;
  const int earlier = Earlier();
  near_weights_.fill(0.0f);
  far_weights_.fill(0.0f);
  for (int age = 1; age <= earlier; ++age) {
    const float similarity = (similarity_[age] + scale * common_[age]) / layers_seen_;
    near_weights_[age] = std::exp(kSharpness * similarity + std::log(kFading) * age);
    // Who is `age` tokens old votes for the tokens after it too.
    for (int later = 0; later < kHorizon && later < age; ++later) {
      far_weights_[age - later] += near_weights_[age] / kHorizon;
    }
  }
}

void RoutingHistory::Vote(int32_t layer, absl::Span<float> near, absl::Span<float> far) {
  Weigh();
  const float prior = std::min(
      1.0f, static_cast<float>(layers_->demand()) / static_cast<float>(layers_->size(layer)));
  std::fill(near.begin(), near.end(), kPriorVotes * prior);
  std::fill(far.begin(), far.end(), kPriorVotes * prior);
  // In the layers passed a token votes for what followed it, one token younger.
  const int shift = layer <= layer_ ? 1 : 0;
  float near_votes = kPriorVotes;
  float far_votes = kPriorVotes;
  for (int age = 1; age <= Earlier(); ++age) {
    const size_t row = Row(layer, age - shift);
    const float near_weight = near_weights_[age];
    const float far_weight = far_weights_[age];
    near_votes += near_weight;
    far_votes += far_weight;
    const uint16_t* numbers = &experts_[row * width_];
    for (int i = 0; i < counts_[row]; ++i) {
      near[numbers[i]] += near_weight;
      far[numbers[i]] += far_weight;
    }
  }
  for (float& vote : near) vote /= near_votes;
  for (float& vote : far) vote /= far_votes;
}

}  // namespace odmoe
