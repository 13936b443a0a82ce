#include "services/inference/model/rope_table.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

RopeConfig Plain() {
  RopeConfig config;
  config.dimensions = 8;
  config.base = 10000.0f;
  return config;
}

TEST(RopeTableTest, PlainFrequenciesFallGeometrically) {
  const RopeTable table(Plain());
  ASSERT_EQ(table.frequencies().size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(table.frequencies()[i], std::pow(10.0, -i), 1e-12);
}

TEST(RopeTableTest, LinearScalingDividesThem) {
  RopeConfig config = Plain();
  config.scaling = RopeConfig::Scaling::kLinear;
  config.factor = 4.0f;
  const RopeTable table(config);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(table.frequencies()[i], std::pow(10.0, -i) / 4, 1e-12);
}

// DeepSeek-V3's own numbers: 64 dimensions, base 10000, factor 40 from 4096, beta 32 and 1. Its
// code's correction range is floor(10.24) = 10 to ceil(22.51) = 23.
TEST(RopeTableTest, YarnKeepsFastPairsInterpolatesSlowOnesAndBlendsBetween) {
  RopeConfig config;
  config.dimensions = 64;
  config.base = 10000.0f;
  config.scaling = RopeConfig::Scaling::kYarn;
  config.factor = 40.0f;
  config.original_context = 4096;
  const RopeTable table(config);
  for (int i = 0; i < 32; ++i) {
    const double plain = std::pow(10000.0, -2.0 * i / 64);
    double expected = plain;
    if (i >= 23) {
      expected = plain / 40;
    } else if (i > 10) {
      const double ramp = (i - 10) / 13.0;
      expected = plain / 40 * ramp + plain * (1 - ramp);
    }
    EXPECT_NEAR(table.frequencies()[i] / expected, 1.0, 1e-12) << "pair " << i;
  }
}

TEST(RopeTableTest, PositionZeroDoesNotTurn) {
  const RopeTable table(Plain());
  std::vector<float> out(8);
  table.Fill(0, out.data());
  EXPECT_EQ(out, (std::vector<float>{1, 0, 1, 0, 1, 0, 1, 0}));
}

TEST(RopeTableTest, AnglesAreExactFarIntoTheContext) {
  const RopeTable table(Plain());
  std::vector<float> out(8);
  table.Fill(1000000, out.data());
  EXPECT_NEAR(out[0], std::cos(1e6), 1e-7);
  EXPECT_NEAR(out[1], std::sin(1e6), 1e-7);
}

TEST(RopeTableTest, TheAttentionFactorScalesYarnsAngles) {
  RopeConfig config = Plain();
  config.scaling = RopeConfig::Scaling::kYarn;
  config.original_context = 256;
  config.attention_factor = 2.0f;
  const RopeTable table(config);
  std::vector<float> out(8);
  table.Fill(0, out.data());
  EXPECT_EQ(out[0], 2.0f);
}

}  // namespace
}  // namespace odmoe
