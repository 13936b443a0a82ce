#include "services/expert_storage/policy/learned_policy.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "services/expert_storage/policy/policy_state.h"

namespace odmoe {
namespace {

// Where the models begin: features are 1, logit of the rate, log of the age in visits, logits of
// the near and the far vote. What they come to on real routing, rounded.
constexpr UseModel::Features kNearWeights = {-0.3f, 0.0f, -0.25f, 1.1f, -0.1f};
constexpr UseModel::Features kFarWeights = {1.5f, 0.1f, -0.2f, 0.25f, 0.5f};
// Ages above are all the same: not of late.
constexpr float kOldest = 100.0f;

constexpr uint64_t kHistoryBytesPerExpert = 48;
constexpr uint64_t kLeastHistoryBytes = 1 << 20;
constexpr uint64_t kMostHistories = 8;
constexpr int kFewestTokens = 8;  // a shorter history says nothing
constexpr int32_t kLargestLayer = 1 << 16;  // of those that a history can name

}  // namespace

LearnedPolicy::LearnedPolicy(std::shared_ptr<const PolicyLayers> shared_layers)
    : ScoredPolicy(std::move(shared_layers)),
      experts_(layers().expert_count()),
      layer_states_(layers().layer_count()),
      samples_(static_cast<size_t>(layers().layer_count()) * kSamples),
      near_model_(kNearWeights),
      far_model_(kFarWeights),
      marks_(layers().largest_layer()),
      near_votes_(layers().largest_layer()),
      far_votes_(layers().largest_layer()),
      usual_size_(static_cast<float>(layers().demand())),
      history_width_(std::clamp(2 * layers().demand(), 8, 64)) {
  const uint64_t room = std::max(kLeastHistoryBytes,
                                 kHistoryBytesPerExpert * static_cast<uint64_t>(
                                                              layers().expert_count()));
  const auto bytes = [&](int tokens) {
    return RoutingHistory::BytesFor(layers(), tokens, history_width_);
  };
  history_tokens_ = RoutingHistory::kTokens;
  while (history_tokens_ >= kFewestTokens && bytes(history_tokens_) > room) history_tokens_ /= 2;
  if (history_tokens_ < kFewestTokens || layers().largest_layer() > kLargestLayer) {
    history_tokens_ = 0;
  }
  most_histories_ =
      history_tokens_ == 0 ? 0 : std::min(kMostHistories, room / bytes(history_tokens_));
  for (int32_t layer = 0; layer < layers().layer_count(); ++layer) {
    const float likely = std::min(1.0f, usual_size_ / static_cast<float>(layers().size(layer)));
    for (int64_t e = layers().first(layer); e < layers().end(layer); ++e) {
      experts_[e].near = experts_[e].far = likely;
    }
  }
}

uint64_t LearnedPolicy::bookkeeping_bytes() const {
  return ScoredPolicy::bookkeeping_bytes() + experts_.capacity() * sizeof(Expert) +
         layer_states_.capacity() * sizeof(Layer) + samples_.capacity() * sizeof(Sample) +
         marks_.capacity() + near_votes_.capacity() * 2 * sizeof(float) +
         clients_.size() * sizeof(Client) +
         histories_ * RoutingHistory::BytesFor(layers(), history_tokens_, history_width_);
}

void LearnedPolicy::OnVisit(uint64_t id, int32_t layer) {
  auto& entry = clients_[id];
  if (entry == nullptr) entry = std::make_unique<Client>();
  Client& client = *entry;
  if (!client.settled) {
    Settle(client);
    std::erase(unsettled_, &client);
  }
  const float size = static_cast<float>(client.visit.size());
  if (size > 0.0f) usual_size_ += kStep * (size - usual_size_);
  if (client.history == nullptr) GiveHistory(client);
  client.layer = layer;
  client.visit.clear();
  client.taken = 0;
  client.last_visit = ++visits_;
}

void LearnedPolicy::GiveHistory(Client& client) {
  if (most_histories_ == 0) return;
  if (histories_ >= most_histories_) {
    Client* quietest = nullptr;
    for (auto& [id, other] : clients_) {
      if (other->history == nullptr) continue;
      if (quietest == nullptr || other->last_visit < quietest->last_visit) quietest = other.get();
    }
    // A few rounds of all layers: clients that take turns must not take each other's histories.
    const uint64_t quiet = static_cast<uint64_t>(layers().layer_count()) * 4 * most_histories_;
    if (quietest->last_visit + quiet > visits_) return;
    quietest->history.reset();
    --histories_;
  }
  client.history = std::make_unique<RoutingHistory>(shared_layers(), history_tokens_,
                                                    history_width_);
  ++histories_;
}

void LearnedPolicy::OnDemand(uint64_t id, int64_t expert) {
  Client& client = *clients_.find(id)->second;
  client.visit.push_back(expert);
  if (!client.settled) return;
  client.settled = false;
  unsettled_.push_back(&client);
}

void LearnedPolicy::OnInsert(int64_t expert, Arrival arrival) {
  if (arrival != Arrival::kWished) return;
  experts_[expert].wished_for = layer_states_[layers().LayerOf(expert)].visits + 1;
}

void LearnedPolicy::OnClientGone(uint64_t id) {
  const auto entry = clients_.find(id);
  if (entry == clients_.end()) return;
  if (entry->second->history != nullptr) --histories_;
  std::erase(unsettled_, entry->second.get());
  clients_.erase(entry);
}

bool LearnedPolicy::Wide(const Client& client) const {
  return static_cast<float>(client.visit.size()) > kWide * usual_size_;
}

// Demands of a visit are taken together, when a victim is asked for or the next visit begins, since
// only then is it known how many there are. More may come after that.
void LearnedPolicy::Settle(Client& client) {
  client.settled = true;
  if (client.taken == 0) BeginSettling(client);
  Layer& layer = layer_states_[client.layer];
  const bool wide = Wide(client);
  const float share = wide ? usual_size_ / static_cast<float>(client.visit.size()) : 1.0f;
  // The first visits weigh as much as their number says, so that rates are means from the start.
  const float step = std::max(kStep, 0.999f / static_cast<float>(layer.visits));
  const auto fresh = absl::MakeConstSpan(client.visit).subspan(client.taken);
  for (const int64_t expert : fresh) {
    experts_[expert].rate += step * share;
    experts_[expert].last_visit = layer.visits;
  }
  if (client.history != nullptr && !wide) client.history->Add(fresh);
  client.taken = client.visit.size();
  residents().Changed(client.layer);
}

void LearnedPolicy::BeginSettling(Client& client) {
  Layer& layer = layer_states_[client.layer];
  if (!Wide(client)) Learn(client.layer, client.visit);
  ++layer.visits;
  const float kept = 1.0f - std::max(kStep, 0.999f / static_cast<float>(layer.visits));
  for (int64_t e = layers().first(client.layer); e < layers().end(client.layer); ++e) {
    experts_[e].rate *= kept;
  }
  if (client.history != nullptr) client.history->BeginVisit(client.layer);
}

void LearnedPolicy::Learn(int32_t number, const std::vector<int64_t>& demanded) {
  Layer& layer = layer_states_[number];
  if ((layer.visits + static_cast<uint32_t>(number)) % kLearnEvery != 0) return;
  LearnFar(number);
  // Chances that nobody has looked at for long are not what eviction goes by.
  if (layer.looked + 2 * kLooked < visits_) return;
  const int64_t first = layers().first(number);
  for (const int64_t expert : demanded) marks_[expert - first] = 1;
  for (int64_t e = first; e < layers().end(number); ++e) {
    near_model_.Observe(FeaturesOf(e, layer), marks_[e - first] != 0);
  }
  near_model_.Learn();
  for (const int64_t expert : demanded) marks_[expert - first] = 0;
  // Taken now, judged when the layer's next kHorizon visits have been.
  const int32_t size = layers().size(number);
  const int32_t count = std::min(kSamples, size);
  const int32_t offset = static_cast<int32_t>(layer.visits * 7u % static_cast<uint32_t>(size));
  for (int32_t i = 0; i < count; ++i) {
    Sample& sample = samples_[static_cast<size_t>(number) * kSamples + i];
    sample.number = static_cast<int32_t>((int64_t{i} * size / count + offset) % size);
    sample.features = FeaturesOf(first + sample.number, layer);
  }
  layer.sampled_at = layer.visits;
}

void LearnedPolicy::LearnFar(int32_t number) {
  const Layer& layer = layer_states_[number];
  for (int32_t i = 0; i < kSamples; ++i) {
    Sample& sample = samples_[static_cast<size_t>(number) * kSamples + i];
    if (sample.number < 0) break;
    const Expert& expert = experts_[layers().first(number) + sample.number];
    if (layer.visits == layer.sampled_at + kLearnEvery) {
      far_model_.Observe(sample.features, expert.last_visit > layer.sampled_at);
    }
    sample.number = -1;
  }
  far_model_.Learn();
}

void LearnedPolicy::Look(const Client& client) {
  if (client.history == nullptr) return;
  // Which client comes to a layer next is not known: those at work have equal shares in its votes.
  uint64_t at_work = 0;
  const uint64_t recently = 4 * static_cast<uint64_t>(layers().layer_count()) * clients_.size();
  for (const auto& [id, other] : clients_) at_work += other->last_visit + recently > visits_;
  // A client looks at a layer kLooked times a token.
  const float share = at_work <= 1 ? 1.0f : 1.0f / static_cast<float>(kLooked * at_work);
  const int32_t looked = std::min(kLooked, layers().layer_count());
  for (int32_t i = 0; i < looked; ++i) {
    const int32_t layer = (client.layer + i) % layers().layer_count();
    const size_t size = static_cast<size_t>(layers().size(layer));
    const auto near = absl::MakeSpan(near_votes_).first(size);
    const auto far = absl::MakeSpan(far_votes_).first(size);
    client.history->Vote(layer, near, far);
    Expert* expert = &experts_[layers().first(layer)];
    for (size_t e = 0; e < size; ++e, ++expert) {
      expert->near += share * (near[e] - expert->near);
      expert->far += share * (far[e] - expert->far);
    }
    layer_states_[layer].looked = visits_;
    residents().Changed(layer);
  }
}

UseModel::Features LearnedPolicy::FeaturesOf(int64_t number, const Layer& layer) const {
  const Expert& expert = experts_[number];
  const float age = expert.last_visit == 0
                        ? kOldest
                        : std::min(kOldest, static_cast<float>(layer.visits + 1 -
                                                               expert.last_visit));
  return {1.0f, Logit(expert.rate), std::log(age), Logit(expert.near), Logit(expert.far)};
}

double LearnedPolicy::Score(int64_t number) const {
  const Expert& expert = experts_[number];
  const Layer& layer = layer_states_[layers().LayerOf(number)];
  // A prefetch that goes before its layer comes was for nothing.
  if (expert.wished_for == layer.visits + 1) return 0.0;
  const UseModel::Features features = FeaturesOf(number, layer);
  const float next = near_model_.Chance(features);
  const float soon = std::max(next, far_model_.Chance(features));
  constexpr float kHorizon = RoutingHistory::kHorizon;
  const float rounds = (soon - next) * kHorizon / 2.0f +
                       (1.0f - soon) * (kHorizon + kBeyond / std::max(expert.rate, kLeastRate));
  return static_cast<double>(layers().layer_count()) * rounds;
}

void LearnedPolicy::BeforeScores() {
  for (Client* client : unsettled_) {
    Settle(*client);
    Look(*client);
  }
  unsettled_.clear();
}

// Rates alone: votes come back with the first tokens, and the models' weights nearly begin where
// they end.
std::string LearnedPolicy::SaveState() const {
  std::vector<float> rates;
  rates.reserve(experts_.size());
  for (const Expert& expert : experts_) rates.push_back(expert.rate);
  return FloatsToState(rates);
}

bool LearnedPolicy::RestoreState(absl::string_view state) {
  const auto rates = FloatsFromState(state, experts_.size(), 0.0f, 1.5f);
  if (!rates) return false;
  for (size_t e = 0; e < experts_.size(); ++e) experts_[e].rate = (*rates)[e];
  for (int32_t layer = 0; layer < layers().layer_count(); ++layer) {
    // As many visits as make new ones weigh no more than they should.
    auto& visits = layer_states_[layer].visits;
    visits = std::max(visits, static_cast<uint32_t>(1.0f / kStep));
    residents().Changed(layer);
  }
  return true;
}

}  // namespace odmoe
