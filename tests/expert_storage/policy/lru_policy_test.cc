#include "services/expert_storage/policy/lru_policy.h"

#include <algorithm>
#include <list>
#include <random>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(LruPolicyTest, NothingResidentHasNoVictim) {
  LruPolicy policy(4);
  EXPECT_EQ(policy.Victim(kAnyTenant), -1);
  policy.Inserted(2, kDefaultTenant);
  EXPECT_EQ(policy.Victim(kAnyTenant), 2);
  policy.Removed(2);
  EXPECT_EQ(policy.Victim(kAnyTenant), -1);
}

TEST(LruPolicyTest, EvictsLeastRecentlyTouched) {
  LruPolicy policy(4);
  for (int64_t e : {0, 1, 2, 3}) policy.Inserted(e, kDefaultTenant);
  policy.Demanded(1, 0);
  EXPECT_EQ(policy.Victim(kAnyTenant), 1);
  policy.Demanded(1, 1);
  EXPECT_EQ(policy.Victim(kAnyTenant), 2);
  policy.Removed(2);
  EXPECT_EQ(policy.Victim(kAnyTenant), 3);
}

TEST(LruPolicyTest, WhatCannotGoIsNotAskedForAgainAtOnce) {
  LruPolicy policy(3);
  for (int64_t e : {0, 1, 2}) policy.Inserted(e, kDefaultTenant);
  policy.Skipped(0);
  EXPECT_EQ(policy.Victim(kAnyTenant), 1);
}

TEST(LruPolicyTest, AgreesWithAListOverManyOperations) {
  constexpr int64_t kExperts = 40;
  LruPolicy policy(kExperts);
  std::list<int64_t> order;  // oldest first
  std::mt19937 random(3);
  for (int step = 0; step < 20'000; ++step) {
    const int64_t expert = static_cast<int64_t>(random() % kExperts);
    const auto at = std::find(order.begin(), order.end(), expert);
    if (at == order.end()) {
      policy.Inserted(expert, kDefaultTenant);
      order.push_back(expert);
    } else if (random() % 4 == 0) {
      policy.Removed(expert);
      order.erase(at);
    } else {
      policy.Demanded(1, expert);
      order.splice(order.end(), order, at);
    }
    ASSERT_EQ(policy.Victim(kAnyTenant), order.empty() ? -1 : order.front()) << "step " << step;
  }
}

}  // namespace
}  // namespace odmoe
