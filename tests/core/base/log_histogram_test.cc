#include "services/core/base/log_histogram.h"

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(LogHistogramTest, ABucketHasTheValuesUpToItsBoundAndAboveTheOneBefore) {
  LogHistogram histogram;
  for (const uint64_t value : {0, 1}) histogram.Add(value);
  EXPECT_EQ(histogram.counts[0], 2u);
  for (size_t i = 1; i + 1 < LogHistogram::kBuckets; ++i) {
    histogram.Add(LogHistogram::UpperBound(i - 1) + 1);
    histogram.Add(LogHistogram::UpperBound(i));
    EXPECT_EQ(histogram.counts[i], 2u) << i;
  }
  histogram.Add(LogHistogram::UpperBound(LogHistogram::kBuckets - 2) + 1);
  histogram.Add(~uint64_t{0});
  EXPECT_EQ(histogram.counts.back(), 2u);
  EXPECT_EQ(histogram.count(), 2u * LogHistogram::kBuckets);
}

TEST(LogHistogramTest, QuantilesAreRightToWithinABucket) {
  LogHistogram histogram;
  EXPECT_EQ(histogram.Quantile(0.5), 0.0);
  EXPECT_EQ(histogram.Mean(), 0.0);
  for (uint64_t value = 1; value <= 1000; ++value) histogram.Add(value);
  EXPECT_DOUBLE_EQ(histogram.Mean(), 500.5);
  EXPECT_NEAR(histogram.Quantile(0.5), 500, 8);   // even within a bucket, as these are
  EXPECT_NEAR(histogram.Quantile(0.25), 250, 8);
  EXPECT_LE(histogram.Quantile(1.0), 1024.0);
  EXPECT_GT(histogram.Quantile(0.999), 512.0);
  EXPECT_LE(histogram.Quantile(-1.0), 1.0);
  LogHistogram beyond;
  beyond.Add(~uint64_t{0});
  EXPECT_EQ(beyond.Quantile(0.5), LogHistogram::UpperBound(LogHistogram::kBuckets - 2));
}

}  // namespace
}  // namespace odmoe
