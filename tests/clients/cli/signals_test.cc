#include "clients/cli/console/signals.h"

#include <signal.h>
#include <unistd.h>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(SignalScopeTest, FirstSignalCancelsAndCallsBack) {
  absl::Notification called;
  SignalScope scope([&] { called.Notify(); });
  EXPECT_FALSE(scope.cancellation().cancelled());
  kill(getpid(), SIGINT);
  ASSERT_TRUE(called.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_TRUE(scope.cancellation().cancelled());
  EXPECT_EQ(scope.signal(), SIGINT);
}

TEST(SignalScopeTest, CanBeOpenedAgain) {
  { SignalScope scope; }
  absl::Notification called;
  SignalScope scope([&] { called.Notify(); });
  kill(getpid(), SIGTERM);
  ASSERT_TRUE(called.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_EQ(scope.signal(), SIGTERM);
}

// In a process of its own, since the second signal ends it.
TEST(SignalScopeDeathTest, SecondSignalEndsTheProcessAtOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        absl::Notification called;
        SignalScope scope([&] { called.Notify(); });
        kill(getpid(), SIGINT);
        called.WaitForNotification();
        kill(getpid(), SIGINT);
        absl::Notification().WaitForNotificationWithTimeout(absl::Seconds(30));
        _exit(1);
      },
      ::testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace odmoe
