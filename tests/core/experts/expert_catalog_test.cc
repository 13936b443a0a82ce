#include "services/core/experts/expert_catalog.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

ExpertLayout Layout(int64_t dim = 32, int64_t ffn = 64) {
  return MakeExpertLayout(DType::kF32, DType::kF32, DType::kF32, dim, ffn).value();
}

TEST(ExpertLayoutTest, MatricesLieBackToBack) {
  const ExpertLayout layout =
      MakeExpertLayout(DType::kF32, DType::kQ8_0, DType::kF16, 64, 96).value();
  EXPECT_EQ(layout.w1, (ExpertTensor{DType::kF32, 96, 64, 0, 96 * 64 * 4}));
  EXPECT_EQ(layout.w2, (ExpertTensor{DType::kQ8_0, 64, 96, layout.w1.bytes, 64 * 3 * 34}));
  EXPECT_EQ(layout.w3,
            (ExpertTensor{DType::kF16, 96, 64, layout.w2.offset + layout.w2.bytes, 96 * 64 * 2}));
  EXPECT_EQ(layout.bytes, layout.w3.offset + layout.w3.bytes);
}

TEST(ExpertLayoutTest, RefusesShapesThatCannotBe) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  struct Case { DType dtype; int64_t dim, ffn; };
  for (const Case& c : {Case{DType::kF32, 0, 64}, Case{DType::kF32, 64, 0},
                        Case{DType::kF32, -1, 64}, Case{DType::kF32, 64, -1},
                        Case{DType::kQ8_0, 33, 64}, Case{DType::kQ8_0, 64, 33},
                        Case{DType::kF32, huge, 64}, Case{DType::kF32, 64, huge},
                        Case{DType::kF32, huge / 4, huge / 4},
                        Case{DType::kF32, int64_t{1} << 31, int64_t{1} << 30}}) {
    const auto layout = MakeExpertLayout(c.dtype, c.dtype, c.dtype, c.dim, c.ffn);
    EXPECT_TRUE(absl::IsInvalidArgument(layout.status())) << c.dim << " x " << c.ffn;
  }
}

TEST(ExpertCatalogTest, NumbersExpertsByLayerThenExpert) {
  const auto catalog = ExpertCatalog::Create("d", {{1, 4, Layout(), {}}, {3, 2, Layout(), {}}});
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_EQ(catalog->expert_count(), 6);
  EXPECT_EQ(catalog->IndexOf({1, 0}), 0);
  EXPECT_EQ(catalog->IndexOf({1, 3}), 3);
  EXPECT_EQ(catalog->IndexOf({3, 0}), 4);
  for (int64_t index = 0; index < 6; ++index) {
    EXPECT_EQ(catalog->IndexOf(catalog->IdOf(index)), index);
  }
  EXPECT_EQ(catalog->total_bytes(), 6 * Layout().bytes);
}

TEST(ExpertCatalogTest, WhatItDoesNotHaveHasNoNumber) {
  const auto catalog = ExpertCatalog::Create("d", {{1, 4, Layout(), {}}});
  for (const ExpertId id : {ExpertId{0, 0}, ExpertId{2, 0}, ExpertId{1, 4}, ExpertId{1, -1},
                            ExpertId{-1, 0}, ExpertId{std::numeric_limits<int32_t>::max(), 0}}) {
    EXPECT_EQ(catalog->IndexOf(id), -1) << ExpertName(id);
  }
  EXPECT_EQ(catalog->FindLayer(0), nullptr);
  EXPECT_EQ(catalog->FindLayer(-5), nullptr);
}

TEST(ExpertCatalogTest, TheLargestExpertIsOverAllLayers) {
  const auto catalog =
      ExpertCatalog::Create("d", {{0, 1, Layout(32, 64), {}}, {1, 1, Layout(64, 64), {}}});
  EXPECT_EQ(catalog->max_expert_bytes(), Layout(64, 64).bytes);
}

TEST(ExpertCatalogTest, RefusesWhatContradictsItself) {
  const std::vector<std::vector<LayerExperts>> bad = {
      {{1, 2, Layout(), {}}, {1, 2, Layout(), {}}},
      {{2, 2, Layout(), {}}, {1, 2, Layout(), {}}},
      {{0, 0, Layout(), {}}},
      {{0, -1, Layout(), {}}},
      {{-1, 2, Layout(), {}}},
      {{std::numeric_limits<int32_t>::max(), 2, Layout(), {}}},
      {{0, 2, ExpertLayout{}, {}}},
      {{0, 2, Layout(), {1}}},
      {{0, 2, Layout(), {1, 2, 3}}},
      {{0, int32_t{ExpertCatalog::kMaxExperts} + 1, Layout(), {}}},
      {{0, int32_t{ExpertCatalog::kMaxExperts}, Layout(), {}}, {1, 1, Layout(), {}}},
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_TRUE(absl::IsInvalidArgument(ExpertCatalog::Create("d", bad[i]).status())) << i;
  }
}

TEST(ExpertCatalogTest, BytesThatOverflowAreRefused) {
  ExpertLayout layout = Layout();
  layout.bytes = uint64_t{1} << 60;
  EXPECT_TRUE(absl::IsInvalidArgument(
      ExpertCatalog::Create("d", {{0, 1 << 20, layout, {}}}).status()));
}

TEST(ExpertNameTest, DigitsGrowWhereNeeded) {
  EXPECT_EQ(ExpertName({0, 0}), "layer_00_expert_000");
  EXPECT_EQ(ExpertName({61, 383}), "layer_61_expert_383");
  EXPECT_EQ(ExpertName({123, 4567}), "layer_123_expert_4567");
}

}  // namespace
}  // namespace odmoe
