#include "services/expert_storage/prefetch/prefetch_queue.h"

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

}  // namespace
}  // namespace odmoe
