// The default: evicts the largest expected time to the next use, learned from routing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/expert_storage/policy/routing_history.h"
#include "services/expert_storage/policy/scored_policy.h"
#include "services/expert_storage/policy/use_model.h"

namespace odmoe {

// For each expert it keeps how often its layer's visits demand it (the visit a ago weighing 0.9^a)
// and when that was last, and takes from the client's RoutingHistory how earlier tokens like this
// one went on. From these a UseModel gives the chance q of a demand in the layer's next visit, and
// another the chance f of one within its next H = RoutingHistory::kHorizon. With d the layers until
// that visit, L layers in all and r the rate, the expected time to the next use, in layers, is
//   d + L * ((f - q) * H / 2 + (1 - f) * (H + kBeyond / r)).
//
// Chances of the client's next kLooked layers are computed anew when a victim is asked for after a
// visit; others stay as they were, since votes change little from layer to layer. So:
// - a visit costs O(experts of the layer + history x demand), and where a victim is asked for,
//   O(kLooked x (experts of a layer + history x demand)) more: none of it grows with the number of
//   the model's experts or of those resident;
// - it takes 30 bytes an expert, and histories of at most 48 an expert (or of 1 MiB in all).
// Clients' histories are their own; beyond what memory allows, those of the clients that have been
// quiet longest are dropped. Visits much larger than usual, as of prefill, are counted by their
// usual size and are no part of any history.
class LearnedPolicy final : public ScoredPolicy {
 public:
  explicit LearnedPolicy(std::shared_ptr<const PolicyLayers> layers);

  std::string SaveState() const override;
  bool RestoreState(absl::string_view state) override;
  uint64_t bookkeeping_bytes() const override;

 private:
  // Layers from the one visited on whose chances are computed anew; 1 loses a percent of the hits,
  // all of them gain nothing.
  static constexpr int32_t kLooked = 4;
  // The decay of rates, and how little a rate is believed.
  static constexpr float kStep = 0.1f;
  static constexpr float kLeastRate = 0.002f;
  static constexpr float kBeyond = 0.05f;
  // Visits so many times larger than usual are prefill's.
  static constexpr float kWide = 3.0f;
  // Models learn from each so many visits of a layer; the far one from so many of its experts.
  static constexpr uint32_t kLearnEvery = RoutingHistory::kHorizon;
  static constexpr int32_t kSamples = 32;

  struct Client {
    std::unique_ptr<RoutingHistory> history;  // null: no room, or dropped
    int32_t layer = -1;
    bool settled = true;         // nothing is in `visit` beyond `taken`
    size_t taken = 0;            // experts of `visit` that the statistics have
    std::vector<int64_t> visit;  // experts of the visit under way
    uint64_t last_visit = 0;     // its number among all
  };
  struct Expert {
    float rate = 0.0f;
    float near = 0.0f;
    float far = 0.0f;
    uint32_t last_visit = 0;  // of its layer, from 1; 0: never
    uint32_t wished_for = 0;  // the visit of its layer that a prefetch was for
  };
  struct Layer {
    uint32_t visits = 0;      // begun
    uint64_t looked = 0;      // number among all visits of the last that computed its chances
    uint32_t sampled_at = 0;  // visits before the one that samples were taken for
  };
  struct Sample {
    int32_t number = -1;  // in its layer
    UseModel::Features features{};
  };

  void OnVisit(uint64_t client, int32_t layer) override;
  void OnDemand(uint64_t client, int64_t expert) override;
  void OnInsert(int64_t expert, Arrival arrival) override;
  void OnClientGone(uint64_t client) override;
  void BeforeScores() override;
  // The expected time to the next use beyond the distance to its layer.
  double Score(int64_t expert) const override;
  double step() const override { return 1.0; }

  void GiveHistory(Client& client);
  bool Wide(const Client& client) const;
  void Settle(Client& client);
  void BeginSettling(Client& client);
  void Learn(int32_t layer, const std::vector<int64_t>& demanded);
  void LearnFar(int32_t layer);
  void Look(const Client& client);
  UseModel::Features FeaturesOf(int64_t expert, const Layer& layer) const;

  std::vector<Expert> experts_;
  std::vector<Layer> layer_states_;
  std::vector<Sample> samples_;  // [layer, kSamples]
  UseModel near_model_;
  UseModel far_model_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Client>> clients_;
  std::vector<Client*> unsettled_;
  std::vector<uint8_t> marks_;  // of one layer's experts
  std::vector<float> near_votes_, far_votes_;
  uint64_t visits_ = 0;
  float usual_size_;  // of a visit
  int history_tokens_;  // 0: no history
  int history_width_;
  size_t most_histories_;
  size_t histories_ = 0;
};

}  // namespace odmoe
