#include "clients/cli/console/progress.h"

#include <sstream>
#include <string>

#include "absl/strings/str_split.h"
#include "clients/cli/console/table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

ProgressState HalfDone() {
  ProgressState state;
  state.step = "split";
  state.step_number = 2;
  state.step_count = 2;
  state.done_bytes = 50 * kMiB;
  state.total_bytes = 100 * kMiB;
  state.item = "layer_03_expert_007";
  state.bytes_per_second = 10.0 * kMiB;
  state.eta = absl::Seconds(5);
  return state;
}

TEST(RenderProgressTest, ShowsStepBarAmountRateTimeAndItem) {
  const std::string line = RenderProgress(HalfDone(), 140);
  EXPECT_THAT(line, StartsWith("[2/2] split  [###############---------------]   50%  "));
  EXPECT_THAT(line, HasSubstr(FormatBytes(50 * kMiB) + " / " + FormatBytes(100 * kMiB)));
  EXPECT_THAT(line, HasSubstr(FormatBytes(10 * kMiB) + "/s"));
  EXPECT_THAT(line, HasSubstr("ETA " + ShortDuration(absl::Seconds(5))));
  EXPECT_THAT(line, HasSubstr("layer_03_expert_007"));
}

TEST(RenderProgressTest, NeverExceedsTheWidth) {
  for (int columns = 0; columns < 160; ++columns) {
    EXPECT_LE(DisplayWidth(RenderProgress(HalfDone(), columns)), size_t(columns)) << columns;
  }
}

TEST(RenderProgressTest, DropsTheItemBeforeTheBarAndTheBarBeforeTheRate) {
  const std::string medium = RenderProgress(HalfDone(), 100);
  EXPECT_THAT(medium, Not(HasSubstr("layer_03")));
  EXPECT_THAT(medium, HasSubstr("#"));
  const std::string narrow = RenderProgress(HalfDone(), 70);
  EXPECT_THAT(narrow, Not(HasSubstr("#")));
  EXPECT_THAT(narrow, HasSubstr("/s"));
}

TEST(RenderProgressTest, HasNoBarWhereTheTotalIsNotKnown) {
  ProgressState state = HalfDone();
  state.total_bytes = 0;
  EXPECT_THAT(RenderProgress(state, 140), Not(HasSubstr("[#")));
  EXPECT_THAT(RenderProgress(state, 140), HasSubstr(FormatBytes(50 * kMiB)));
}

TEST(RenderProgressTest, StaysWithinTheBarWhenMoreIsDoneThanExpected) {
  ProgressState state = HalfDone();
  state.done_bytes = 2 * state.total_bytes;
  EXPECT_THAT(RenderProgress(state, 140), HasSubstr("100%"));
}

class ProgressDisplayTest : public ::testing::Test {
 protected:
  Console MakeConsole(bool terminal) {
    return Console(
        {.out = &out_, .err = &err_, .err_is_terminal = terminal, .columns = [] { return 100; }});
  }
  ProgressDisplay::Clock Clock() {
    return [this] { return now_; };
  }
  ProgressState At(uint64_t done) {
    ProgressState state;
    state.step = "convert";
    state.done_bytes = done;
    state.total_bytes = 1000;
    return state;
  }
  std::vector<std::string> Lines() {
    return absl::StrSplit(err_.str(), '\n', absl::SkipEmpty());
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::ostringstream out_, err_;
};

TEST_F(ProgressDisplayTest, WritesALineForEachTenthInAPipe) {
  Console console = MakeConsole(false);
  {
    ProgressDisplay display(console, false, Clock());
    for (uint64_t done = 0; done <= 1000; done += 5) display.Update(At(done));
  }
  EXPECT_THAT(Lines(), SizeIs(11));
  EXPECT_THAT(err_.str(), Not(HasSubstr("\r")));
  EXPECT_THAT(err_.str(), Not(HasSubstr("\x1b")));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(ProgressDisplayTest, WritesALineInAPipeAfterFiveSecondsWithoutATenth) {
  Console console = MakeConsole(false);
  ProgressDisplay display(console, false, Clock());
  display.Update(At(1));
  now_ += absl::Seconds(4);
  display.Update(At(2));
  EXPECT_THAT(Lines(), SizeIs(1));
  now_ += absl::Seconds(1);
  display.Update(At(3));
  EXPECT_THAT(Lines(), SizeIs(2));
}

TEST_F(ProgressDisplayTest, MeasuresRateAndTimeLeft) {
  Console console = MakeConsole(false);
  ProgressDisplay display(console, false, Clock());
  display.Update(At(0));
  now_ += absl::Seconds(2);
  display.Update(At(500));
  EXPECT_THAT(Lines().back(), HasSubstr("250 B/s"));
  EXPECT_THAT(Lines().back(), HasSubstr("ETA " + ShortDuration(absl::Seconds(2))));
}

TEST_F(ProgressDisplayTest, RedrawsABarAtMostTenTimesASecondAndEndsWithTheLastState) {
  Console console = MakeConsole(true);
  {
    ProgressDisplay display(console, false, Clock());
    for (uint64_t done = 0; done <= 1000; ++done) {
      display.Update(At(done));
      now_ += absl::Milliseconds(1);
    }
  }
  const std::vector<std::string> draws = absl::StrSplit(err_.str(), '\r', absl::SkipEmpty());
  EXPECT_LE(draws.size(), 12u);
  EXPECT_GE(draws.size(), 10u);
  EXPECT_THAT(draws.back(), HasSubstr("100%"));
  EXPECT_EQ(err_.str().back(), '\n');
}

TEST_F(ProgressDisplayTest, GivesEachStepItsOwnBarLine) {
  Console console = MakeConsole(true);
  {
    ProgressDisplay display(console, false, Clock());
    ProgressState state = At(10);
    state.step_count = 2;
    display.Update(state);
    state.step_number = 2;
    display.Update(state);
  }
  EXPECT_THAT(Lines(), SizeIs(2));
  EXPECT_THAT(Lines()[1], HasSubstr("[2/2]"));
}

TEST_F(ProgressDisplayTest, IsSilentWhenQuiet) {
  Console console = MakeConsole(true);
  {
    ProgressDisplay display(console, true, Clock());
    display.Update(At(10));
  }
  EXPECT_EQ(err_.str(), "");
}

}  // namespace
}  // namespace odmoe
