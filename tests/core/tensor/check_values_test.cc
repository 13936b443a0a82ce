#include "services/core/tensor/check_values.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace odmoe {
namespace {

// Where each format has its scales, by its block's layout; the bits make a NaN or an infinity of
// it.
struct Scale {
  DType dtype;
  size_t at;
  std::vector<uint8_t> bits;
};

const Scale kScales[] = {
    {DType::kF32, 0, {0, 0, 0x80, 0x7f}},       {DType::kF32, 0, {1, 0, 0x80, 0xff}},
    {DType::kF64, 0, {0, 0, 0, 0, 0, 0, 0xf0, 0x7f}},
    {DType::kF16, 0, {0, 0x7c}},                {DType::kF16, 0, {1, 0xfc}},
    {DType::kBF16, 0, {0x80, 0x7f}},            {DType::kBF16, 0, {0xc0, 0xff}},
    {DType::kQ4_0, 0, {0, 0x7e}},               {DType::kQ4_1, 0, {0, 0x7e}},
    {DType::kQ4_1, 2, {0, 0xfc}},               {DType::kQ5_0, 0, {0, 0x7c}},
    {DType::kQ5_1, 2, {0, 0x7c}},               {DType::kQ8_0, 0, {0, 0x7c}},
    {DType::kQ8_1, 2, {0, 0x7c}},               {DType::kQ2_K, 80, {0, 0x7c}},
    {DType::kQ2_K, 82, {0, 0x7c}},              {DType::kQ3_K, 108, {0, 0x7c}},
    {DType::kQ4_K, 0, {0, 0x7c}},               {DType::kQ4_K, 2, {0, 0x7c}},
    {DType::kQ5_K, 2, {0, 0x7c}},               {DType::kQ6_K, 208, {0, 0x7c}},
    {DType::kQ8_K, 0, {0, 0, 0xc0, 0x7f}},      {DType::kIQ2_XXS, 0, {0, 0x7c}},
    {DType::kIQ2_XS, 0, {0, 0x7c}},             {DType::kIQ3_XXS, 0, {0, 0x7c}},
    {DType::kIQ1_S, 0, {0, 0x7c}},              {DType::kIQ4_NL, 0, {0, 0x7c}},
    {DType::kIQ3_S, 0, {0, 0x7c}},              {DType::kIQ2_S, 0, {0, 0x7c}},
    {DType::kIQ4_XS, 0, {0, 0x7c}},             {DType::kTQ1_0, 52, {0, 0x7c}},
    {DType::kTQ2_0, 64, {0, 0x7c}},             {DType::kMXFP4, 0, {0xff}},
    {DType::kQ1_0, 0, {0, 0x7c}},               {DType::kQ2_0, 0, {0, 0x7c}},
    // iq1_m: 0x7c00 by nibbles 0, 0, c, 7 in the high bits of four words.
    {DType::kIQ1_M, 48, {0, 0, 0, 0, 0, 0xc0, 0, 0x70}},
};

TEST(FindNotFiniteTest, FindsTheBlockOfEveryScale) {
  for (const Scale& scale : kScales) {
    const size_t block = Info(scale.dtype).block_bytes;
    // More blocks than are looked at in one run.
    const size_t count = 5000, bad = 4242;
    std::vector<std::byte> data(count * block);
    EXPECT_EQ(FindNotFinite(scale.dtype, data), std::nullopt) << Info(scale.dtype).name;
    std::memcpy(data.data() + bad * block + scale.at, scale.bits.data(), scale.bits.size());
    EXPECT_EQ(FindNotFinite(scale.dtype, data), bad) << Info(scale.dtype).name;
    EXPECT_EQ(FindNotFinite(scale.dtype, absl::MakeConstSpan(data).first(bad * block)),
              std::nullopt);
  }
}

TEST(FindNotFiniteTest, LooksAtNothingButScales) {
  for (const DTypeInfo& info : AllDTypes()) {
    std::vector<std::byte> data(3 * info.block_bytes, std::byte{0x3c});
    EXPECT_EQ(FindNotFinite(info.dtype, data), std::nullopt) << info.name;
  }
  // All bits set is a number in each of these.
  for (DType dtype : {DType::kI8, DType::kI16, DType::kI32, DType::kI64, DType::kNVFP4}) {
    EXPECT_EQ(FindNotFinite(dtype, std::vector<std::byte>(144, std::byte{0xff})), std::nullopt);
  }
}

}  // namespace
}  // namespace odmoe
