#include "services/conversion/jobs/progress_meter.h"

#include <gtest/gtest.h>

namespace odmoe {
namespace {

ConvertProgress At(int step, uint64_t done, uint64_t total) {
  return {"step", step, 2, done, total, 0, "item"};
}

TEST(ProgressMeterTest, KnowsNoRateAtFirst) {
  ProgressMeter meter({1000, 1000});
  const JobProgress progress = meter.Update(At(1, 0, 1000), absl::UnixEpoch());
  EXPECT_EQ(progress.bytes_per_second, 0.0);
  EXPECT_FALSE(progress.eta.has_value());
  EXPECT_EQ(progress.item, "item");
  EXPECT_EQ(progress.phase_count, 2);
}

TEST(ProgressMeterTest, EstimatesOverTheStepsToCome) {
  ProgressMeter meter({1000, 3000});
  meter.Update(At(1, 0, 1000), absl::UnixEpoch());
  const JobProgress progress = meter.Update(At(1, 500, 1000), absl::UnixEpoch() + absl::Seconds(1));
  EXPECT_DOUBLE_EQ(progress.bytes_per_second, 500.0);
  EXPECT_EQ(*progress.eta, absl::Seconds(7));  // (500 + 3000) / 500
}

TEST(ProgressMeterTest, SmoothsTheRate) {
  ProgressMeter meter({1'000'000});
  absl::Time now = absl::UnixEpoch();
  meter.Update(At(1, 0, 1'000'000), now);
  uint64_t done = 0;
  for (int i = 0; i < 20; ++i)
    meter.Update(At(1, done += 1000, 1'000'000), now += absl::Seconds(1));
  const JobProgress stalled = meter.Update(At(1, done, 1'000'000), now += absl::Seconds(1));
  EXPECT_LT(stalled.bytes_per_second, 1000.0);
  EXPECT_GT(stalled.bytes_per_second, 700.0);
}

TEST(ProgressMeterTest, KeepsTheRateOverSteps) {
  ProgressMeter meter({1000, 1000});
  absl::Time now = absl::UnixEpoch();
  meter.Update(At(1, 0, 1000), now);
  meter.Update(At(1, 1000, 1000), now += absl::Seconds(2));
  const JobProgress second = meter.Update(At(2, 0, 1000), now);
  EXPECT_DOUBLE_EQ(second.bytes_per_second, 500.0);
  EXPECT_EQ(*second.eta, absl::Seconds(2));
}

TEST(ProgressMeterTest, SurvivesTotalsThatAreWrong) {
  ProgressMeter meter({});
  absl::Time now = absl::UnixEpoch();
  meter.Update(At(1, 10, 5), now);
  const JobProgress progress = meter.Update(At(1, 20, 5), now + absl::Seconds(1));
  EXPECT_EQ(*progress.eta, absl::ZeroDuration());
  EXPECT_EQ(meter.Update(At(-7, 0, 0), now + absl::Seconds(2)).phase_number, -7);
}

}  // namespace
}  // namespace odmoe
