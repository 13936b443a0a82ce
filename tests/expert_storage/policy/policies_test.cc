// Every policy through the interface, and what is particular to each.
#include <algorithm>
#include <list>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "services/core/experts/residency_table.h"
#include "services/expert_storage/policy/belady_policy.h"
#include "services/expert_storage/policy/lru_policy.h"
#include "services/expert_storage/policy/make_policy.h"
#include "services/expert_storage/policy/routing_history.h"
#include "services/expert_storage/policy/shadow_policies.h"
#include "services/expert_storage/working_set.h"

namespace odmoe {
namespace {

constexpr uint64_t kClient = 1;

std::shared_ptr<const PolicyLayers> Layers(std::vector<int32_t> counts, int32_t demand = 2) {
  return std::make_shared<PolicyLayers>(counts, demand);
}

// A token demands these experts.
void Demand(EvictionPolicy& policy, std::initializer_list<int64_t> experts,
            uint64_t client = kClient) {
  for (const int64_t expert : experts) policy.Demanded(client, expert);
}

TEST(PolicyLayersTest, LayersMayDifferInSize) {
  const auto layers = Layers({3, 1, 4});
  EXPECT_EQ(layers->expert_count(), 8);
  EXPECT_EQ(layers->LayerOf(2), 0);
  EXPECT_EQ(layers->LayerOf(3), 1);
  EXPECT_EQ(layers->first(2), 4);
  EXPECT_EQ(layers->largest_layer(), 4);
  EXPECT_EQ(layers->Distance(0, 2), 2);
  EXPECT_EQ(layers->Distance(2, 0), 1);
  EXPECT_EQ(layers->Distance(1, 1), 3);
}

TEST(LruPolicyTest, AgreesWithAListOverManyOperations) {
  constexpr int64_t kExperts = 40;
  LruPolicy policy(kExperts);
  std::list<int64_t> order;  // oldest first
  std::map<int64_t, int32_t> tenants;
  std::mt19937 random(3);
  for (int step = 0; step < 20'000; ++step) {
    const int64_t expert = static_cast<int64_t>(random() % kExperts);
    const int32_t tenant = static_cast<int32_t>(random() % 3);
    const auto at = std::find(order.begin(), order.end(), expert);
    if (at == order.end()) {
      policy.Demanded(kClient, expert);
      policy.Inserted(expert, tenant, Arrival::kDemanded);
      tenants[expert] = tenant;
      order.push_back(expert);
    } else if (random() % 4 == 0) {
      policy.Removed(expert);
      order.erase(at);
    } else {
      if (random() % 4 == 0) {
        policy.HandedOver(expert, tenant);
        tenants[expert] = tenant;
      } else if (random() % 2 == 0) {
        policy.Skipped(expert);
      } else {
        policy.Demanded(kClient, expert);
      }
      order.splice(order.end(), order, at);
    }
    ASSERT_EQ(policy.Victim(kAnyTenant), order.empty() ? -1 : order.front()) << "step " << step;
    const auto own = std::find_if(order.begin(), order.end(),
                                  [&](int64_t e) { return tenants[e] == tenant; });
    ASSERT_EQ(policy.Victim(tenant), own == order.end() ? -1 : *own) << "step " << step;
  }
}

class PoliciesTest : public ::testing::TestWithParam<PolicyKind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, PoliciesTest, ::testing::ValuesIn(AllPolicyKinds()),
                         [](const auto& info) {
                           std::string name(PolicyKindName(info.param));
                           std::erase(name, '-');
                           return name;
                         });

// A client that may go, tenants, pins, prefetches and batches: whatever happens, the victim is
// resident and its tenant's, nothing is lost, and the same calls give the same victims.
TEST_P(PoliciesTest, VictimsAreResidentWhateverHappens) {
  const auto layers = Layers({7, 1, 12, 5}, 3);
  const auto policy = MakeEvictionPolicy(GetParam(), layers);
  const auto twin = MakeEvictionPolicy(GetParam(), layers);
  std::map<int64_t, int32_t> residents;
  std::mt19937 random(5);
  const auto both = [&](auto&& call) { call(*policy), call(*twin); };
  for (int step = 0; step < 6'000; ++step) {
    const uint64_t client = 1 + random() % 3;
    const int32_t layer = static_cast<int32_t>(random() % 4);
    const int32_t tenant = static_cast<int32_t>(random() % 2);
    // Sometimes all of the layer, as in prefill.
    std::vector<int64_t> experts(layers->size(layer));
    std::iota(experts.begin(), experts.end(), layers->first(layer));
    std::shuffle(experts.begin(), experts.end(), random);
    if (random() % 16 != 0) experts.resize(std::min<size_t>(3, experts.size()));
    for (const int64_t e : experts) both([&](EvictionPolicy& p) { p.Demanded(client, e); });
    if (random() % 8 == 0) experts.push_back(static_cast<int64_t>(random() % 25));  // a prefetch
    for (const int64_t e : experts) {
      if (residents.contains(e)) continue;
      const int32_t whose = random() % 4 == 0 ? tenant : kAnyTenant;
      for (int tries = 0; tries < 3 && residents.size() >= 9; ++tries) {
        const int64_t victim = policy->Victim(whose);
        ASSERT_EQ(victim, twin->Victim(whose));
        if (victim < 0) break;
        ASSERT_TRUE(residents.contains(victim));
        ASSERT_TRUE(whose == kAnyTenant || residents[victim] == whose);
        if (random() % 4 == 0) {
          both([&](EvictionPolicy& p) { p.Skipped(victim); });
          ASSERT_TRUE(residents.contains(policy->Victim(kAnyTenant)));
          ASSERT_EQ(policy->Victim(kAnyTenant), twin->Victim(kAnyTenant));
        } else if (random() % 8 == 0) {
          residents[victim] = 1 - residents[victim];
          both([&](EvictionPolicy& p) { p.HandedOver(victim, residents[victim]); });
        } else {
          residents.erase(victim);
          both([&](EvictionPolicy& p) { p.Removed(victim); });
        }
      }
      residents[e] = tenant;
      both([&](EvictionPolicy& p) { p.Inserted(e, tenant, Arrival::kDemanded); });
    }
    if (random() % 64 == 0) both([&](EvictionPolicy& p) { p.ClientGone(client); });
  }
  while (!residents.empty()) {
    const int64_t victim = policy->Victim(kAnyTenant);
    ASSERT_EQ(residents.erase(victim), 1u);
    policy->Removed(victim);
  }
  EXPECT_EQ(policy->Victim(kAnyTenant), -1);
  EXPECT_EQ(policy->Victim(7), -1);
}

TEST_P(PoliciesTest, WhenAllAreSkippedTheyComeAgain) {
  const auto policy = MakeEvictionPolicy(GetParam(), Layers({4}));
  Demand(*policy, {0, 1});
  for (const int64_t e : {0, 1}) policy->Inserted(e, kDefaultTenant, Arrival::kDemanded);
  std::set<int64_t> seen;
  for (int i = 0; i < 2; ++i) {
    seen.insert(policy->Victim(kAnyTenant));
    policy->Skipped(policy->Victim(kAnyTenant));
  }
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_GE(policy->Victim(kAnyTenant), 0);
}

// Kimi-K2's shape, and the bound that the store is held to with all its bookkeeping.
TEST_P(PoliciesTest, BookkeepingIsBelow256BytesAnExpert) {
  constexpr int64_t kLayers = 60, kPerLayer = 384, kExperts = kLayers * kPerLayer;
  const auto policy =
      MakeEvictionPolicy(GetParam(), Layers(std::vector<int32_t>(kLayers, kPerLayer), 8));
  std::mt19937 random(1);
  // More clients than there is room for histories.
  for (int64_t round = 0; round < 3; ++round) {
    for (uint64_t client = 1; client <= 20; ++client) {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        for (int i = 0; i < 8; ++i) {
          policy->Demanded(client, layer * kPerLayer + i * 48 + random() % 48);
        }
        if (round == 0 && client == 1) policy->Inserted(layer * kPerLayer, 0, Arrival::kDemanded);
        policy->Victim(kAnyTenant);
      }
    }
  }
  const uint64_t residency = ResidencyTable::BytesFor(kExperts);
  const uint64_t working_set = kExperts * WorkingSet::kBytesPerExpert;
  EXPECT_LT((policy->bookkeeping_bytes() + residency + working_set) / kExperts, 256u)
      << policy->bookkeeping_bytes() / kExperts << " are the policy's";
}

TEST(MakePolicyTest, NamesAreReadAsWritten) {
  for (const PolicyKind kind : AllPolicyKinds()) {
    EXPECT_EQ(ParseEvictionPolicy(PolicyKindName(kind)).value(), kind);
  }
  EXPECT_EQ(ParseEvictionPolicy("LRU").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseEvictionPolicy("belady").status().code(), absl::StatusCode::kInvalidArgument);
}

// Experts 0 and 1 of a layer of four fill the cache; 0 has been demanded often but not of late.
int64_t VictimOfOftenAndLate(PolicyKind kind, int often, int since) {
  const auto policy = MakeEvictionPolicy(kind, Layers({4}, 1));
  for (int i = 0; i < often; ++i) Demand(*policy, {0});
  for (const int64_t e : {0, 1}) policy->Inserted(e, kDefaultTenant, Arrival::kDemanded);
  Demand(*policy, {1});
  for (int i = 0; i < since; ++i) Demand(*policy, {2 + i % 2});
  return policy->Victim(kAnyTenant);
}

TEST(RatePoliciesTest, WeighHowOftenAgainstHowLate) {
  EXPECT_EQ(VictimOfOftenAndLate(PolicyKind::kLru, 20, 1), 0);
  EXPECT_EQ(VictimOfOftenAndLate(PolicyKind::kLfu, 2, 1), 1);
  EXPECT_EQ(VictimOfOftenAndLate(PolicyKind::kLfru, 20, 1), 1);
  EXPECT_EQ(VictimOfOftenAndLate(PolicyKind::kLfru, 1, 0), 0);
  EXPECT_EQ(VictimOfOftenAndLate(PolicyKind::kNextUse, 20, 1), 1);
}

TEST(NextUsePolicyTest, OfEquallyPopularOnesTheFartherLayerGoes) {
  const auto policy = MakeEvictionPolicy(PolicyKind::kNextUse, Layers({2, 2, 2}, 1));
  for (int token = 0; token < 5; ++token) Demand(*policy, {0, 2, 4});
  for (const int64_t e : {0, 2, 4}) policy->Inserted(e, kDefaultTenant, Arrival::kDemanded);
  // After layer 2 comes layer 0, then 1, then 2.
  EXPECT_EQ(policy->Victim(kAnyTenant), 4);
}

TEST(BeladyPolicyTest, EvictsWhatIsNeededLast) {
  const std::vector<int64_t> demands = {0, 1, 2, 0, 1, 3, 0, 2};
  BeladyPolicy policy(Layers({4}, 1), demands);
  for (const int64_t e : {0, 1, 2}) {
    policy.Demanded(kClient, e);
    policy.Inserted(e, kDefaultTenant, Arrival::kDemanded);
  }
  EXPECT_EQ(policy.Victim(kAnyTenant), 2);
  Demand(policy, {0, 1});
  EXPECT_EQ(policy.Victim(kAnyTenant), 1);  // never again
}

// Tokens come in two kinds that share no expert; which one a token is shows in its first layer.
TEST(RoutingHistoryTest, ATokenIsExpectedToGoOnLikeThoseItResembles) {
  constexpr int kKinds = 2, kLayers = 6;
  const auto layers = Layers(std::vector<int32_t>(kLayers, 8), 2);
  RoutingHistory history(layers, 64, 4);
  const auto visit = [&](int64_t layer, int64_t kind) {
    history.BeginVisit(static_cast<int32_t>(layer));
    history.Add({layer * 8 + 2 * kind});
    history.Add({layer * 8 + 2 * kind + 1});
  };
  for (int token = 0; token < 20; ++token) {
    for (int layer = 0; layer < kLayers; ++layer) visit(layer, token % kKinds);
  }
  visit(0, 1);
  std::vector<float> near(8), far(8);
  history.Vote(3, absl::MakeSpan(near), absl::MakeSpan(far));
  EXPECT_GT(near[2], 0.8f);
  EXPECT_LT(near[0], 0.15f);
  EXPECT_NEAR(near[6], 0.0f, 0.05f);  // nobody's
  EXPECT_NEAR(far[0], far[2], 0.15f);  // the next four tokens are of both kinds
  // In the layer just passed the next token is meant, which is of the other kind.
  history.Vote(0, absl::MakeSpan(near), absl::MakeSpan(far));
  EXPECT_GT(near[0], 0.8f);
  EXPECT_LT(near[2], 0.15f);
}

TEST(LearnedPolicyTest, KeepsWhatTheTokenIsGoingToNeed) {
  constexpr int kLayers = 6;
  const auto policy =
      MakeEvictionPolicy(PolicyKind::kDefault, Layers(std::vector<int32_t>(kLayers, 8), 2));
  std::mt19937 random(2);
  int64_t kind = 0;
  for (int token = 0; token < 60; ++token) {
    kind = static_cast<int64_t>(random() % 2);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      Demand(*policy, {layer * 8 + 2 * kind, layer * 8 + 2 * kind + 1});
    }
  }
  // Layer 1 holds one expert of either kind, both as popular; a token of kind 1 has begun.
  policy->Inserted(8, kDefaultTenant, Arrival::kDemanded);
  policy->Inserted(10, kDefaultTenant, Arrival::kDemanded);
  Demand(*policy, {2, 3});
  EXPECT_EQ(policy->Victim(kAnyTenant), 8);
  // And one of kind 0.
  for (int64_t layer = 1; layer < kLayers; ++layer) Demand(*policy, {layer * 8 + 2, layer * 8 + 3});
  Demand(*policy, {0, 1});
  EXPECT_EQ(policy->Victim(kAnyTenant), 10);
}

TEST(LearnedPolicyTest, APrefetchedExpertStaysUntilItsLayerHasPassed) {
  const auto policy = MakeEvictionPolicy(PolicyKind::kDefault, Layers({8, 8}, 1));
  for (int token = 0; token < 30; ++token) Demand(*policy, {token % 4, 8 + token % 4});
  policy->Inserted(11, kDefaultTenant, Arrival::kDemanded);
  Demand(*policy, {0});
  policy->Inserted(15, kDefaultTenant, Arrival::kWished);  // never seen
  EXPECT_EQ(policy->Victim(kAnyTenant), 11);
  Demand(*policy, {8});
  EXPECT_EQ(policy->Victim(kAnyTenant), 15);  // it was not demanded after all
}

TEST_P(PoliciesTest, ResidentsAreRankedAndWhatIsRestoredComesLast) {
  const auto layers = Layers({8, 8}, 2);
  const auto policy = MakeEvictionPolicy(GetParam(), layers);
  for (int token = 0; token < 40; ++token) {
    Demand(*policy, {token % 8 == 0 ? 3 : 0, token % 2 == 0 ? 1 : 2, 8, 9 + token % 7});
  }
  for (const int64_t e : {3, 1, 0}) policy->Inserted(e, kDefaultTenant, Arrival::kDemanded);
  policy->Inserted(15, kDefaultTenant, Arrival::kRestored);
  policy->Inserted(7, kDefaultTenant, Arrival::kRestored);
  const std::vector<int64_t> ranked = MostWantedFirst(policy->Ranks());
  ASSERT_EQ(ranked.size(), 5u);
  EXPECT_EQ(ranked.back(), policy->Victim(kAnyTenant));
  EXPECT_TRUE(ranked.back() == 7 || ranked.back() == 15);
  EXPECT_LT(std::find(ranked.begin(), ranked.end(), 0), ranked.begin() + 3);
  // A policy that is told the state goes on from there.
  const auto heir = MakeEvictionPolicy(GetParam(), layers);
  EXPECT_TRUE(heir->RestoreState(policy->SaveState()));
  if (GetParam() != PolicyKind::kLru) {
    for (const int64_t e : {3, 0}) heir->Inserted(e, kDefaultTenant, Arrival::kRestored);
    EXPECT_EQ(heir->Victim(kAnyTenant), 3);
  }
  // Of another model, cut short, or with nonsense in it: refused.
  const auto other = MakeEvictionPolicy(GetParam(), Layers({4}));
  std::string state = policy->SaveState();
  state += "x";
  EXPECT_FALSE(heir->RestoreState(state));
  EXPECT_EQ(other->RestoreState(policy->SaveState()), GetParam() == PolicyKind::kLru);
  state.assign(policy->SaveState().size(), '\xff');
  EXPECT_EQ(heir->RestoreState(state), state.empty());
}

// Expert 0 for long, then it and two others in turn, and always expert 4 besides, in a cache of
// three: LRU hits 4 alone from then on, who counts keeps 0.
TEST(ShadowPoliciesTest, TellWhatOthersWouldHaveHit) {
  const auto layers = Layers({4, 1}, 1);
  ShadowPolicies shadows(layers, PolicyKind::kDefault, 3);
  const auto demand = [&](uint64_t client, int tokens, int experts) {
    for (int i = 0; i < tokens; ++i) {
      shadows.Demanded(client, i % experts);
      shadows.Demanded(client, 4);
    }
    shadows.ClientGone(client);
  };
  const auto hits_of = [&](const std::string& policy) -> uint64_t {
    for (const ShadowPolicyHits& hits : shadows.Hits()) {
      if (hits.policy == policy) return hits.hits;
    }
    return 0;
  };
  EXPECT_EQ(shadows.Hits().size(), AllPolicyKinds().size() - 1);
  demand(1, 30, 1);
  EXPECT_EQ(shadows.Hits()[0].demands, 60u);
  EXPECT_EQ(hits_of("lru"), 58u);
  EXPECT_EQ(hits_of("lfu"), 58u);
  demand(2, 30, 3);
  EXPECT_EQ(hits_of("lru"), 58u + 31u);
  EXPECT_GE(hits_of("lfu"), 58u + 38u);
  // With room for all of them everybody hits, but for the one that had gone.
  shadows.SetCapacity(5);
  demand(3, 60, 3);
  EXPECT_EQ(hits_of("lru"), 89u + 119u);
  // With room for one nobody does, but for the first, which was there still.
  shadows.SetCapacity(1);
  demand(4, 6, 2);
  EXPECT_LE(hits_of("lru"), 208u + 1u);
}

}  // namespace
}  // namespace odmoe
