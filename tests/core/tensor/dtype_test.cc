#include "services/core/tensor/dtype.h"
#include "services/core/tensor/i2_s.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

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
  const Row rows[] = {
      {0, "f32", 1, 4},          {1, "f16", 1, 2},         {2, "q4_0", 32, 18},
      {3, "q4_1", 32, 20},       {6, "q5_0", 32, 22},      {7, "q5_1", 32, 24},
      {8, "q8_0", 32, 34},       {9, "q8_1", 32, 36},      {10, "q2_K", 256, 84},
      {11, "q3_K", 256, 110},    {12, "q4_K", 256, 144},   {13, "q5_K", 256, 176},
      {14, "q6_K", 256, 210},    {15, "q8_K", 256, 292},   {16, "iq2_xxs", 256, 66},
      {17, "iq2_xs", 256, 74},   {18, "iq3_xxs", 256, 98}, {19, "iq1_s", 256, 50},
      {20, "iq4_nl", 32, 18},    {21, "iq3_s", 256, 110},  {22, "iq2_s", 256, 82},
      {23, "iq4_xs", 256, 136},  {24, "i8", 1, 1},         {25, "i16", 1, 2},
      {26, "i32", 1, 4},         {27, "i64", 1, 8},        {28, "f64", 1, 8},
      {29, "iq1_m", 256, 56},    {30, "bf16", 1, 2},       {34, "tq1_0", 256, 54},
      {35, "tq2_0", 256, 66},    {39, "mxfp4", 32, 17},    {40, "nvfp4", 64, 36},
      {41, "q1_0", 128, 18},     {42, "q2_0", 64, 18}};
  EXPECT_EQ(AllDTypes().size(), std::size(rows) + 1);  // and i2_s
  for (const Row& row : rows) {
    const auto info = FindDType(row.id);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->name, row.name);
    EXPECT_EQ(info->block_elements, row.elements);
    EXPECT_EQ(info->block_bytes, row.bytes);
    EXPECT_EQ(FindDType(absl::string_view(row.name))->dtype, info->dtype);
  }
}

TEST(DTypeTest, RefusesRemovedAndUnknownIds) {
  for (const auto& [id, name] : {std::pair{4u, "q4_2"}, std::pair{5u, "q4_3"},
                                 std::pair{31u, "q4_0_4_4"}, std::pair{32u, "q4_0_4_8"},
                                 std::pair{33u, "q4_0_8_8"}, std::pair{36u, "iq4_nl_4_4"},
                                 std::pair{37u, "iq4_nl_4_8"}, std::pair{38u, "iq4_nl_8_8"}}) {
    EXPECT_THAT(std::string(FindDType(id).status().message()),
                HasSubstr(std::string("(") + name + ") was removed from ggml"));
  }
  for (uint32_t id : {99u, kBitnetIds + 36, 0xffffffffu}) {
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

TEST(DTypeTest, GivesBitnetsIdsTheirOwnMeaningOnlyWhereAsked) {
  EXPECT_EQ(FindBitnetDType(36)->dtype, DType::kI2_S);
  EXPECT_EQ(FindBitnetDType(38)->dtype, DType::kTL1);
  EXPECT_EQ(FindBitnetDType(39)->dtype, DType::kMXFP4);
  EXPECT_EQ(FindBitnetDType(2)->dtype, DType::kQ4_0);
  EXPECT_FALSE(FindBitnetDType(37).ok());
  EXPECT_EQ(FindDType(39)->dtype, DType::kMXFP4);
  EXPECT_EQ(GgmlTypeId(DType::kI2_S), 36u);
  EXPECT_EQ(GgmlTypeId(DType::kTL2), 39u);
  EXPECT_EQ(GgmlTypeId(DType::kQ4_0), 2u);
  EXPECT_EQ(FindDType(absl::string_view("i2_s"))->dtype, DType::kI2_S);
}

// Sizes that bitnet.cpp's ggml_nbytes gives, of 2B-4T's and of the 3B model's matrices, without the
// 32 bytes that hold tl's scale: it is a tensor of its own.
TEST(DTypeTest, CountsTheBytesOfBitnetsTensors) {
  EXPECT_EQ(*TensorBytes(DType::kI2_S, 2560, 6912), 2560u * 6912 / 4 + 32);
  EXPECT_EQ(*TensorBytes(DType::kTL1, 2560, 640), 2560u * 640 / 4);
  EXPECT_EQ(*TensorBytes(DType::kTL2, 8640, 3200), (8640u - 256) * 3200 / 3 * 5 / 8 + 409600u / 2);
  EXPECT_EQ(*TensorBytes(DType::kQ8_0, 64, 3), 3 * 68u);
  EXPECT_FALSE(RowBytes(DType::kTL1, 128).ok());
  EXPECT_FALSE(TensorBytes(DType::kTL2, 256, 32).ok());
  EXPECT_FALSE(TensorBytes(DType::kI2_S, 64, 1).ok());
  EXPECT_FALSE(TensorBytes(DType::kI2_S, 128, 0).ok());
  const int64_t huge = std::numeric_limits<int64_t>::max() / 128 * 128;
  for (DType dtype : {DType::kI2_S, DType::kTL1, DType::kTL2, DType::kF32}) {
    EXPECT_FALSE(TensorBytes(dtype, huge, huge).ok());
  }
}

TEST(I2_STest, PlacesWeightsAQuarterBlockApart) {
  std::vector<int8_t> codes(256, 0);
  codes[0] = 1, codes[32] = -1, codes[64] = 1, codes[96] = -1;  // byte 0: codes 2, 0, 2, 0
  codes[128 + 5] = -1, codes[128 + 127] = 1;
  std::vector<std::byte> bytes(64);
  EncodeI2_SRow(codes, bytes.data());
  EXPECT_EQ(bytes[0], std::byte{0b10001000});
  EXPECT_EQ(bytes[1], std::byte{0b01010101});
  EXPECT_EQ(bytes[32 + 5], std::byte{0b00010101});
  EXPECT_EQ(bytes[32 + 31], std::byte{0b01010110});
  std::vector<int8_t> back(256, 9);
  EXPECT_TRUE(DecodeI2_SRow(bytes.data(), absl::MakeSpan(back)));
  EXPECT_EQ(back, codes);
  bytes[40] |= std::byte{0b11000000};
  EXPECT_FALSE(DecodeI2_SRow(bytes.data(), absl::MakeSpan(back)));
  EXPECT_EQ(back[128 + 8], 0);
}

}  // namespace
}  // namespace odmoe
