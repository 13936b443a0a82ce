#include "services/inference/model/fetch_or_execute.h"

#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"

namespace odmoe {
namespace {

const ExpertCatalog& Catalog() {
  static const auto source = MemoryExpertSource::Random({}).value();
  return source->catalog();
}

constexpr absl::Duration kSlow = absl::Milliseconds(80);
constexpr absl::Duration kQuick = absl::Milliseconds(8);

TEST(FetchOrExecuteTest, EachIsTriedOnceAndThenTheCheaperTaken) {
  for (const bool execution_is_cheaper : {false, true}) {
    FetchOrExecute choice(RemoteMode::kAuto, Catalog());
    const absl::Time now = absl::UnixEpoch();
    EXPECT_FALSE(choice.Execute(8, 8, now));
    choice.Fetched(8, execution_is_cheaper ? kSlow : kQuick);
    EXPECT_TRUE(choice.Execute(8, 8, now));
    choice.Executed(8, 8, execution_is_cheaper ? kQuick : kSlow);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(choice.Execute(8, 8, now), execution_is_cheaper);
  }
}

TEST(FetchOrExecuteTest, TheDearerIsTriedAgainAtATwentiethOfTheTimeAndMayWin) {
  FetchOrExecute choice(RemoteMode::kAuto, Catalog());
  const absl::Time now = absl::UnixEpoch();
  choice.Fetched(8, kSlow);
  choice.Executed(8, 8, kQuick);
  int fetches = 0;
  absl::Duration fetching, all;
  for (int i = 0; i < 10000; ++i) {
    const bool execute = choice.Execute(8, 8, now);
    if (execute) {
      choice.Executed(8, 8, kQuick);
    } else {
      choice.Fetched(8, kSlow);
      ++fetches;
      fetching += kSlow;
    }
    all += execute ? kQuick : kSlow;
  }
  EXPECT_GT(fetches, 10);
  EXPECT_LE(absl::FDivDuration(fetching, all), 0.06);
  // The link got quicker: the trials find out.
  bool fetched_for_good = false;
  for (int i = 0; i < 100000 && !fetched_for_good; ++i) {
    if (choice.Execute(8, 8, now)) {
      choice.Executed(8, 8, kQuick);
    } else {
      choice.Fetched(8, absl::Milliseconds(1));
      fetched_for_good = !choice.Execute(8, 8, now) && !choice.Execute(8, 8, now);
    }
  }
  EXPECT_TRUE(fetched_for_good);
}

TEST(FetchOrExecuteTest, ManyTokensAnExpertAreJudgedOnTheirOwn) {
  FetchOrExecute choice(RemoteMode::kAuto, Catalog());
  const absl::Time now = absl::UnixEpoch();
  choice.Fetched(8, kSlow);
  choice.Executed(8, 8, kQuick);
  EXPECT_TRUE(choice.Execute(8, 8, now));
  choice.Executed(8, 8 * 64, absl::Seconds(1));
  EXPECT_FALSE(choice.Execute(8, 8 * 64, now));
  EXPECT_TRUE(choice.Execute(8, 8, now));
}

TEST(FetchOrExecuteTest, AfterFailuresItFetchesForEverLonger) {
  for (const RemoteMode mode : {RemoteMode::kExecute, RemoteMode::kAuto}) {
    FetchOrExecute choice(mode, Catalog());
    absl::Time now = absl::UnixEpoch();
    choice.Fetched(1, kSlow);
    choice.Executed(1, 1, kQuick);
    absl::Duration last;
    for (int failures = 0; failures < 12; ++failures) {
      ASSERT_TRUE(choice.Execute(1, 1, now));
      choice.Failed(now);
      const absl::Time failed = now;
      while (!choice.Execute(1, 1, now)) now += absl::Milliseconds(100);
      EXPECT_GE(now - failed, last);
      last = now - failed;
    }
    EXPECT_EQ(last, absl::Seconds(30));
    choice.Executed(1, 1, kQuick);
    choice.Failed(now);
    EXPECT_TRUE(choice.Execute(1, 1, now + absl::Seconds(1)));
  }
}

TEST(FetchOrExecuteTest, AnExpertIsBroughtOnceItsExecutionsHaveCostThat) {
  FetchOrExecute choice(RemoteMode::kAuto, Catalog());
  choice.Fetched(1, kSlow);
  choice.Executed(1, 1, kQuick);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 9; ++i) EXPECT_FALSE(choice.WorthBringing({0, 1}, 1)) << i;
    EXPECT_TRUE(choice.WorthBringing({0, 1}, 1));
  }
  EXPECT_FALSE(choice.WorthBringing({0, 2}, 1));
  EXPECT_FALSE(choice.WorthBringing({-1, 2}, 1));
}

TEST(FetchOrExecuteTest, ForcedItNeverBringsBesideAndFetchNeverExecutes) {
  FetchOrExecute execute(RemoteMode::kExecute, Catalog());
  execute.Fetched(1, kQuick);
  execute.Executed(1, 1, kSlow);
  EXPECT_TRUE(execute.Execute(1, 1, absl::UnixEpoch()));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(execute.WorthBringing({0, 1}, 1));
  FetchOrExecute fetch(RemoteMode::kFetch, Catalog());
  EXPECT_FALSE(fetch.Execute(1, 1, absl::UnixEpoch()));
}

}  // namespace
}  // namespace odmoe
