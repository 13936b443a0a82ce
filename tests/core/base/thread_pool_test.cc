#include "services/core/base/thread_pool.h"

#include <atomic>

#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskBeforeItIsGone) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool(3);
    for (int i = 0; i < 1000; ++i) pool.Schedule([&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

TEST(ThreadPoolTest, GrowsUntilEveryWaitingTaskRuns) {
  ThreadPool pool(4);
  auto* barrier = new absl::Barrier(4);  // passes only if four tasks run at once
  absl::Notification passed;
  for (int i = 0; i < 4; ++i) {
    pool.Schedule([barrier, &passed] {
      if (!barrier->Block()) return;
      delete barrier;
      passed.Notify();
    });
  }
  EXPECT_TRUE(passed.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

TEST(ThreadPoolTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    ThreadPool pool(1);
    for (int i = 0; i < 100; ++i) pool.Schedule([&order, i] { order.push_back(i); });
  }
  for (int i = 0; i < 100; ++i) ASSERT_EQ(order[i], i);
}

}  // namespace
}  // namespace odmoe
