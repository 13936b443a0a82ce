#include "services/inference/engine/turns.h"

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(TurnsTest, OneAtATime) {
  Turns turns;
  int inside = 0;  // no lock of its own: the turn is the lock
  int64_t total = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 500; ++k) {
        auto turn = turns.Take({});
        ASSERT_TRUE(turn.ok());
        ASSERT_EQ(++inside, 1);
        ++total;
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(total, 2000);
}

TEST(TurnsTest, TwoThatTakeTurnsGoRound) {
  Turns turns;
  std::vector<int> order;
  absl::Notification both_wait;
  auto first = turns.Take({});
  ASSERT_TRUE(first.ok());
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 50; ++k) {
        auto turn = turns.Take({});
        ASSERT_TRUE(turn.ok());
        order.push_back(i);
        // Handing on only once the other waits makes the order certain.
        while (k < 49 && turns.waiting() == 0) std::this_thread::yield();
      }
    });
  }
  while (turns.waiting() < 2) std::this_thread::yield();
  { const auto handed_on = *std::move(first); }
  for (std::thread& thread : threads) thread.join();
  for (size_t k = 2; k + 2 < order.size(); ++k) EXPECT_NE(order[k], order[k - 1]) << k;
}

TEST(TurnsTest, AWaitEndsWithItsCancellation) {
  Turns turns;
  const auto held = turns.Take({});
  ASSERT_TRUE(held.ok());
  Cancellation cancellation;
  std::thread waiter([&] {
    CallOptions call;
    call.cancellation = &cancellation;
    EXPECT_EQ(turns.Take(call).status().code(), absl::StatusCode::kCancelled);
  });
  while (turns.waiting() == 0) std::this_thread::yield();
  cancellation.Cancel();
  waiter.join();
  EXPECT_EQ(turns.waiting(), 0);
}

TEST(TurnsTest, AWaitEndsAtItsDeadline) {
  Turns turns;
  const auto held = turns.Take({});
  ASSERT_TRUE(held.ok());
  CallOptions call;
  call.deadline = absl::Now() + absl::Milliseconds(5);
  EXPECT_EQ(turns.Take(call).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(TurnsTest, OneWhoGivesUpDoesNotHoldUpTheNext) {
  Turns turns;
  auto held = turns.Take({});
  ASSERT_TRUE(held.ok());
  Cancellation cancellation;
  CallOptions cancellable;
  cancellable.cancellation = &cancellation;
  std::thread gives_up([&] { EXPECT_FALSE(turns.Take(cancellable).ok()); });
  while (turns.waiting() < 1) std::this_thread::yield();
  std::thread next([&] { EXPECT_TRUE(turns.Take({}).ok()); });
  while (turns.waiting() < 2) std::this_thread::yield();
  cancellation.Cancel();
  gives_up.join();
  { const auto handed_on = *std::move(held); }
  next.join();
}

}  // namespace
}  // namespace odmoe
