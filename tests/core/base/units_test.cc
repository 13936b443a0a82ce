#include "services/core/base/units.h"

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(ParseByteSizeTest, ReadsBinaryDecimalAndPlainSizes) {
  EXPECT_EQ(*ParseByteSize("1536"), 1536u);
  EXPECT_EQ(*ParseByteSize("1.5GiB"), 1610612736u);
  EXPECT_EQ(*ParseByteSize("200 MB"), 200000000u);
  EXPECT_EQ(*ParseByteSize("64k"), 65536u);
  EXPECT_EQ(*ParseByteSize(" 2 TiB "), uint64_t{2} << 40);
  EXPECT_EQ(*ParseByteSize("0"), 0u);
}

TEST(ParseByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "-1", "1.2.3", "12 apples", "1e30", "99999999999TiB", "%"}) {
    EXPECT_EQ(ParseByteSize(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(FormatBytesTest, UsesTheLargestUnitBelow) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1610612736), "1.50 GiB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16.00 EiB");
}

TEST(ShortDurationTest, ShortensWithLength) {
  EXPECT_EQ(ShortDuration(absl::Milliseconds(850)), "850ms");
  EXPECT_EQ(ShortDuration(absl::Milliseconds(4200)), "4.2s");
  EXPECT_EQ(ShortDuration(absl::Seconds(187)), "3m07s");
  EXPECT_EQ(ShortDuration(absl::Minutes(62)), "1h02m");
  EXPECT_EQ(ShortDuration(-absl::Seconds(1)), "0ms");
}

TEST(RoundUpTest, KeepsMultiplesAndRaisesTheRest) {
  EXPECT_EQ(RoundUp(0, 4096), 0u);
  EXPECT_EQ(RoundUp(1, 4096), 4096u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
}

}  // namespace
}  // namespace odmoe
