#include "services/core/tensor/dtype.h"

#include <cstdint>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace odmoe {
namespace {

using testing::HasSubstr;

TEST(DTypeTest, KnowsGgmlsIdsAndBlocks) {
  struct Row {
    uint32_t id;
    const char* name;
    uint32_t elements, bytes;
  };
  for (const Row& row : {Row{0, "f32", 1, 4}, Row{1, "f16", 1, 2}, Row{2, "q4_0", 32, 18},
                         Row{8, "q8_0", 32, 34}, Row{12, "q4_K", 256, 144},
                         Row{14, "q6_K", 256, 210}, Row{30, "bf16", 1, 2},
                         Row{35, "tq2_0", 256, 66}, Row{39, "mxfp4", 32, 17}}) {
    const auto info = FindDType(row.id);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->name, row.name);
    EXPECT_EQ(info->block_elements, row.elements);
    EXPECT_EQ(info->block_bytes, row.bytes);
    EXPECT_EQ(FindDType(absl::string_view(row.name))->dtype, info->dtype);
  }
}

TEST(DTypeTest, RefusesRemovedAndUnknownIds) {
  for (uint32_t id : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u}) {
    EXPECT_THAT(std::string(FindDType(id).status().message()), HasSubstr("removed")) << id;
  }
  for (uint32_t id : {99u, 0xffffffffu}) {
    EXPECT_THAT(std::string(FindDType(id).status().message()), HasSubstr("unknown")) << id;
  }
}

TEST(DTypeTest, FindsNamesInAnyCaseAndListsThemOtherwise) {
  EXPECT_EQ(FindDType(absl::string_view("Q4_k"))->dtype, DType::kQ4_K);
  EXPECT_THAT(std::string(FindDType(absl::string_view("q9")).status().message()),
              HasSubstr("q8_0"));
}

TEST(DTypeTest, CountsRowBytesInWholeBlocks) {
  EXPECT_EQ(*RowBytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(*RowBytes(DType::kF32, 3), 12u);
  EXPECT_EQ(*RowBytes(DType::kF32, 0), 0u);
  EXPECT_FALSE(RowBytes(DType::kQ8_0, 33).ok());
  EXPECT_FALSE(RowBytes(DType::kF32, -1).ok());
  EXPECT_FALSE(RowBytes(DType::kF64, std::numeric_limits<int64_t>::max()).ok());
}

}  // namespace
}  // namespace odmoe
