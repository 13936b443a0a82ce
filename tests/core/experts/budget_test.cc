#include "services/core/experts/budget.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

TEST(BudgetTest, ParsesSharesSizesAndAuto) {
  EXPECT_EQ(ParseBudget("auto")->kind, Budget::Kind::kAuto);
  EXPECT_EQ(ParseBudget("25%")->kind, Budget::Kind::kPercent);
  EXPECT_EQ(ParseBudget("25%")->percent, 25.0);
  EXPECT_EQ(ParseBudget(" 12.5 % ")->percent, 12.5);
  EXPECT_EQ(ParseBudget("1.5GiB")->kind, Budget::Kind::kBytes);
  EXPECT_EQ(ParseBudget("1.5GiB")->bytes, 3 * kGiB / 2);
}

TEST(BudgetTest, RefusesWhatIsNoBudget) {
  for (const char* text : {"", " ", "%", "0%", "-5%", "100.1%", "nan%", "inf%", "0", "-1", "1.5XB",
                           "AUTO", "25 percent", "1e400%", "9999999999GiB"}) {
    const auto budget = ParseBudget(text);
    EXPECT_TRUE(absl::IsInvalidArgument(budget.status())) << text << ": " << budget.status();
  }
}

TEST(BudgetTest, APercentageIsOfAllExperts) {
  EXPECT_EQ(ResolveBudget({Budget::Kind::kPercent, 0, 25.0}, 80 * 4096, 1).value(), 20u * 4096);
  EXPECT_EQ(ResolveBudget({Budget::Kind::kPercent, 0, 100.0}, 80 * 4096, 1).value(), 80u * 4096);
}

TEST(BudgetTest, NeverExceedsWhatThereIsToHold) {
  EXPECT_EQ(ResolveBudget({Budget::Kind::kBytes, 1 << 20, 0}, 4096, 1).value(), 4096u);
}

TEST(BudgetTest, BelowTheMinimumSaysBothFigures) {
  const auto budget = ResolveBudget({Budget::Kind::kBytes, 4096, 0}, 1 << 20, 8192);
  ASSERT_TRUE(absl::IsResourceExhausted(budget.status())) << budget.status();
  EXPECT_THAT(budget.status().message(), ::testing::HasSubstr("4096"));
  EXPECT_THAT(budget.status().message(), ::testing::HasSubstr("8192"));
}

TEST(BudgetTest, AutomaticLeavesAReserve) {
  const uint64_t everything = uint64_t{1} << 60;
  const auto budget = ResolveBudget({}, everything, 0);
  ASSERT_TRUE(budget.ok()) << budget.status();
  EXPECT_LT(*budget, everything);
  EXPECT_EQ(ResolveBudget({}, 4096, 1).value(), 4096u);
}

TEST(BudgetTest, APercentageOutOfRangeIsRefusedWhenResolvedToo) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      ResolveBudget({Budget::Kind::kPercent, 0, 250.0}, 4096, 1).status()));
}

}  // namespace
}  // namespace odmoe
