#include "services/expert_storage/prefetch/prefetch_queue.h"

#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(PrefetchQueueTest, WishesComeInTheirOrder) {
  PrefetchQueue queue(4);
  EXPECT_FALSE(queue.Pop().has_value());
  EXPECT_TRUE(queue.Push({7, 1, 10}));
  EXPECT_TRUE(queue.Push({3, 1, 11}));
  EXPECT_EQ(queue.Pop()->expert, 7);
  EXPECT_EQ(queue.Pop()->expert, 3);
  EXPECT_TRUE(queue.empty());
}

TEST(PrefetchQueueTest, WhenFullTheOldestGoes) {
  PrefetchQueue queue(2);
  EXPECT_TRUE(queue.Push({1, 1, 0}));
  EXPECT_TRUE(queue.Push({2, 1, 0}));
  EXPECT_FALSE(queue.Push({3, 1, 0}));
  EXPECT_EQ(queue.Pop()->expert, 2);
  EXPECT_EQ(queue.Pop()->expert, 3);
}

TEST(PrefetchQueueTest, CancelDropsOneClientsWishes) {
  PrefetchQueue queue(8);
  for (int64_t e = 0; e < 6; ++e) queue.Push({e, static_cast<uint64_t>(e % 2), 0});
  EXPECT_EQ(queue.Cancel(0), 3u);
  EXPECT_EQ(queue.Pop()->expert, 1);
  EXPECT_EQ(queue.Cancel(5), 0u);
}

TEST(PrefetchQueueTest, WhoWishesForMuchNeitherDelaysNorDropsTheOthersWishes) {
  PrefetchQueue queue(6);
  queue.Push({50, 2, 0});
  queue.Push({51, 2, 0});
  size_t dropped = 0;
  for (int64_t e = 0; e < 100; ++e) dropped += queue.Push({e, 1, 0}) ? 0 : 1;
  queue.Push({60, 3, 0});
  EXPECT_EQ(dropped, 96u);
  std::vector<int64_t> order;
  while (const auto wish = queue.Pop()) order.push_back(wish->expert);
  EXPECT_EQ(order, (std::vector<int64_t>{50, 97, 60, 51, 98, 99}));
}

TEST(PrefetchQueueTest, AShorterQueueDropsTheOldestOfWhoHasMost) {
  PrefetchQueue queue(8);
  queue.Push({50, 2, 0});
  for (int64_t e = 0; e < 6; ++e) queue.Push({e, 1, 0});
  EXPECT_EQ(queue.SetCapacity(3), 4u);
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_EQ(queue.Pop()->expert, 50);
  EXPECT_EQ(queue.Pop()->expert, 4);
  EXPECT_EQ(queue.SetCapacity(10), 0u);
  EXPECT_EQ(queue.Pop()->expert, 5);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace odmoe
