// Signals that end a service: in processes of their own.
#include "services/core/io/service_process.h"

#include <unistd.h>

#include <cstdlib>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(TerminationSignalsTest, ASignalWaitsForWhoTakesIt) {
  EXPECT_EXIT(
      {
        TerminationSignals signals;
        kill(getpid(), SIGTERM);
        std::exit(signals.Wait());
      },
      ::testing::ExitedWithCode(SIGTERM), "");
}

TEST(TerminationSignalsTest, WhileTheStartLastsItEndsTheProcessAtOnceAndAfterwardsItWaits) {
  EXPECT_EXIT(
      {
        TerminationSignals signals;
        const TerminationSignals::AtOnce at_once(signals);
        kill(getpid(), SIGINT);
        while (true) pause();
      },
      ::testing::KilledBySignal(SIGINT), "");
  EXPECT_EXIT(
      {
        TerminationSignals signals;
        { const TerminationSignals::AtOnce at_once(signals); }
        kill(getpid(), SIGTERM);
        std::exit(signals.Wait());
      },
      ::testing::ExitedWithCode(SIGTERM), "");
}

}  // namespace
}  // namespace odmoe
