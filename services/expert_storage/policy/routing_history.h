// What one client's last tokens were routed to, and what that says of the layers to come.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "services/expert_storage/policy/policy_layers.h"

namespace odmoe {

// Tokens are routed alike: one that chose the experts of an earlier token will go on like it. Each
// earlier token h votes with the weight
//   exp(kSharpness * s(h)) * kFading^age,
// s(h) the share of experts this token has in common with it, layers seen lately counting more
// (kMemory a layer). In layers ahead it votes for its own experts, in layers passed for those of
// the token that followed it: the near vote, of the layer's next visit. The far vote is the mean
// over the next kHorizon visits. Compare nearest-neighbour language models; no training.
//
// A visit costs O(tokens kept x demand), and so does a layer's vote. Not thread-safe.
class RoutingHistory {
 public:
  static constexpr int kTokens = 256;  // the most that are kept, the one under way included
  static constexpr int kHorizon = 4;

  // Keeps `tokens`, of 2 .. kTokens, with at most `width` experts a layer, below 256. A layer has
  // at most 65,536 experts.
  RoutingHistory(std::shared_ptr<const PolicyLayers> layers, int tokens, int width);
  static uint64_t BytesFor(const PolicyLayers& layers, int tokens, int width);

  // A visit begins, of a later layer in the same token or else of a new token.
  void BeginVisit(int32_t layer);
  // Experts that the visit demands, besides those added before.
  void Add(absl::Span<const int64_t> experts);
  // The chances that each expert of the layer is demanded in the layer's next visit, and on average
  // over the next kHorizon. Both spans: experts of the layer.
  void Vote(int32_t layer, absl::Span<float> near, absl::Span<float> far);

 private:
  static constexpr float kSharpness = 10.0f;
  static constexpr float kMemory = 0.8f;
  static constexpr float kFading = 0.995f;
  // Votes of a token that never was, for what is likely without any history.
  static constexpr float kPriorVotes = 3.0f;

  int Earlier() const { return static_cast<int>(std::min<int64_t>(token_, tokens_ - 1)); }
  // Where the experts of the token `age` tokens ago lie.
  size_t Row(int32_t layer, int age) const {
    return static_cast<size_t>(layer) * tokens_ + (token_ - age) % tokens_;
  }
  void BeginToken();
  void Weigh();

  std::shared_ptr<const PolicyLayers> layers_;
  int tokens_;
  int width_;
  std::vector<uint16_t> experts_;  // [layer, token, width], in-layer numbers
  std::vector<uint8_t> counts_;    // [layer, token]
  std::vector<uint8_t> marks_;     // of one layer's experts
  int64_t token_ = -1;
  int32_t layer_ = -1;
  int added_ = 0;  // experts of this visit
  // By age of an earlier token, from 1: s(h) times `layers_seen_` but for this visit, which has
  // `common_` experts in common; weights of the votes.
  std::array<float, kTokens> similarity_{};
  std::array<float, kTokens> common_{};
  std::array<float, kTokens> near_weights_{};
  std::array<float, kTokens> far_weights_{};
  float layers_seen_ = 0.0f;  // 1 + kMemory + kMemory^2 ...
  bool weighed_ = false;
};

}  // namespace odmoe
