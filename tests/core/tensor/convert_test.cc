#include "services/core/tensor/convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <xxhash.h>

#include "services/core/tensor/dtype.h"
#include "tests/support/integer_random.h"

namespace odmoe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a half by its definition, in double.
double HalfByDefinition(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, WidensEveryFiniteHalfAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if (((half >> 10) & 31) == 31) continue;
    EXPECT_EQ(double(F16ToF32(half)), HalfByDefinition(half)) << bits;
    EXPECT_EQ(F32ToF16(F16ToF32(half)), half) << bits;
  }
}

TEST(HalfTest, RoundsToNearestEvenBetweenAnyTwoNeighbours) {
  for (uint16_t low = 0; low < 0x7bff; ++low) {
    const double a = HalfByDefinition(low), b = HalfByDefinition(low + 1);
    const float middle = static_cast<float>((a + b) / 2);  // exact: one more bit than a half has
    EXPECT_EQ(F32ToF16(middle), (low & 1) == 0 ? low : low + 1) << low;
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, kInfinity)), low + 1) << low;
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, 0.0f)), low) << low;
  }
}

TEST(HalfTest, OverflowsToInfinityAndKeepsNaN) {
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(-1e30f), 0xfc00);
  EXPECT_EQ(F32ToF16(kInfinity), 0x7c00);
  EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(std::nanf("")))));
  EXPECT_EQ(F32ToF16(-0.0f), 0x8000);
}

TEST(BFloat16Test, RoundsToNearestEvenAndQuietsNaN) {
  EXPECT_EQ(F32ToBF16(1.0f), 0x3f80);
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, even stays
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, odd goes up
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(F32ToBF16(kInfinity), 0x7f80);
  EXPECT_EQ(F32ToBF16(std::bit_cast<float>(0x7f800001u)) & 0x7fff, 0x7fc0);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = BF16ToF32(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      EXPECT_EQ(F32ToBF16(value), bits);
    }
  }
}

// Every half, at lengths that leave parts of vectors, whatever the instruction set.
TEST(HalfTest, RowsAreWhatTheirNumbersAre) {
  for (const auto& [dtype, widen] : {std::pair{DType::kF16, &F16ToF32},
                                     std::pair{DType::kBF16, &BF16ToF32}}) {
    std::vector<uint16_t> halves(65536 + 13);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> values(halves.size());
    const auto* bytes = reinterpret_cast<const std::byte*>(halves.data());
    ASSERT_TRUE(DecodeRow(dtype, bytes, absl::MakeSpan(values)).ok());
    for (size_t i = 0; i < halves.size(); ++i) {
      const float expected = (*widen)(halves[i]);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(values[i])) << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected)) << i;
      }
    }
    // And back, NaN among them.
    std::vector<std::byte> again(2 * values.size());
    ASSERT_TRUE(EncodeRow(dtype, values, again.data()).ok());
    const auto narrow = dtype == DType::kF16 ? &F32ToF16 : &F32ToBF16;
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, again.data() + 2 * i, sizeof(bits));
      EXPECT_EQ(bits, narrow(values[i])) << i;
    }
  }
}

TEST(HalfTest, RowsRoundAsTheirNumbersDo) {
  IntegerRandom random(5);
  std::vector<float> values(40001);
  for (float& v : values) v = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
  for (size_t i = 0; i < values.size(); i += 3) values[i] = std::ldexp(values[i], -60);
  for (const auto& [dtype, narrow] : {std::pair{DType::kF16, &F32ToF16},
                                      std::pair{DType::kBF16, &F32ToBF16}}) {
    std::vector<std::byte> bytes(2 * values.size());
    ASSERT_TRUE(EncodeRow(dtype, values, bytes.data()).ok());
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, bytes.data() + 2 * i, sizeof(bits));
      EXPECT_EQ(bits, (*narrow)(values[i])) << values[i];
    }
  }
}

TEST(Q8_0Test, StoresAScaleAndRoundedMultiples) {
  std::vector<float> values(32, 0.0f);
  values[0] = -12.7f;
  values[1] = 0.25f;   // 2.5 steps of 0.1: halves round away from zero
  values[2] = -0.25f;
  values[31] = 6.35f;
  BlockQ8_0 block;
  ASSERT_TRUE(
      EncodeRow(DType::kQ8_0, values, reinterpret_cast<std::byte*>(&block)).ok());
  EXPECT_EQ(block.d, F32ToF16(12.7f / 127.0f));
  EXPECT_EQ(block.qs[0], -127);
  EXPECT_EQ(block.qs[1], 3);
  EXPECT_EQ(block.qs[2], -3);
  EXPECT_EQ(block.qs[31], 64);
  EXPECT_EQ(block.qs[3], 0);
}

TEST(Q8_0Test, DecodesToWithinHalfAStep) {
  std::vector<float> values(96);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(float(i)) * float(1 + i / 32);
  std::vector<std::byte> encoded(*RowBytes(DType::kQ8_0, 96));
  ASSERT_TRUE(EncodeRow(DType::kQ8_0, values, encoded.data()).ok());
  std::vector<float> decoded(96);
  ASSERT_TRUE(DecodeRow(DType::kQ8_0, encoded.data(), absl::MakeSpan(decoded)).ok());
  for (size_t i = 0; i < values.size(); ++i) {
    const float step = float(1 + i / 32) / 127.0f;
    // Half a step by rounding, and the scale itself is rounded to eleven bits.
    EXPECT_NEAR(decoded[i], values[i], step * 0.5f + std::fabs(values[i]) / 2048.0f) << i;
  }
}

TEST(Q8_0Test, MakesZerosOfABlockWithoutValues) {
  const std::vector<float> zeros(32, 0.0f);
  BlockQ8_0 block;
  std::memset(&block, 0xff, sizeof(block));
  ASSERT_TRUE(EncodeRow(DType::kQ8_0, zeros, reinterpret_cast<std::byte*>(&block)).ok());
  EXPECT_EQ(block.d, 0);
  for (int8_t q : block.qs) EXPECT_EQ(q, 0);
}

TEST(Q8_0Test, StaysDefinedOnValuesThatHaveNoCode) {
  std::vector<float> values(32, 1.0f);
  values[3] = std::nanf("");
  values[4] = kInfinity;
  BlockQ8_0 block;
  EXPECT_TRUE(EncodeRow(DType::kQ8_0, values, reinterpret_cast<std::byte*>(&block)).ok());
}

TEST(RowCodecTest, RoundTripsEveryFormatThatCanHoldTheValues) {
  const std::vector<float> values = {0.0f, -0.0f, 1.0f, -2.5f, 0.015625f, 1024.0f};
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<std::byte> encoded(*RowBytes(dtype, 6) + 1);
    // One byte off: rows in a file need not be aligned.
    ASSERT_TRUE(EncodeRow(dtype, values, encoded.data() + 1).ok());
    std::vector<float> decoded(6);
    ASSERT_TRUE(DecodeRow(dtype, encoded.data() + 1, absl::MakeSpan(decoded)).ok());
    EXPECT_EQ(std::memcmp(decoded.data(), values.data(), 6 * sizeof(float)), 0)
        << Info(dtype).name;
  }
}

TEST(RowCodecTest, RefusesPartBlocksAndFormatsItHasNoCodeFor) {
  std::vector<float> values(33);
  std::vector<std::byte> out(256);
  EXPECT_EQ(EncodeRow(DType::kQ8_0, values, out.data()).code(),
            absl::StatusCode::kInvalidArgument);
  values.resize(32);
  EXPECT_EQ(EncodeRow(DType::kQ4_0, values, out.data()).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(DecodeRow(DType::kI8, out.data(), absl::MakeSpan(values)).code(),
            absl::StatusCode::kUnimplemented);
}

// XXH3-64 of what dequantize_row_* of the npm package @node-llama-cpp/linux-x64's libggml-base.so
// (llama.cpp b10018, baseline x86-64) makes of 512 blocks of random bytes, NaN made zero.
struct DecodedHash {
  DType dtype;
  uint64_t values;
};
constexpr DecodedHash kDecoded[] = {
    {DType::kQ4_0, 0xdccea62308c41a3du},
    {DType::kQ4_1, 0x63aec6416cf2776fu},
    {DType::kQ5_0, 0x8ebee246d8ff16e9u},
    {DType::kQ5_1, 0xcd5aea1707d92662u},
    {DType::kQ8_0, 0xbd1a3cfca516ffb7u},
    {DType::kQ2_K, 0xddfb4988a8144f81u},
    {DType::kQ3_K, 0xb78c2b69930127a9u},
    {DType::kQ4_K, 0xc5aca1b680d342fbu},
    {DType::kQ5_K, 0xcf04901c7a908fa8u},
    {DType::kQ6_K, 0x9cff227a2d9bc452u},
    {DType::kQ8_K, 0x1677dc7bb7b7ce75u},
    {DType::kIQ2_XXS, 0x99e131f38268848fu},
    {DType::kIQ2_XS, 0x8275726ce8472748u},
    {DType::kIQ3_XXS, 0x47d24977a18f5186u},
    {DType::kIQ1_S, 0x3977620908dd1229u},
    {DType::kIQ4_NL, 0xbb23ebbc36427615u},
    {DType::kIQ3_S, 0x328bfb778a1f1a81u},
    {DType::kIQ2_S, 0x283e3735da580fc6u},
    {DType::kIQ4_XS, 0x9a20867c61a621c1u},
    {DType::kIQ1_M, 0xdcb8deea86bcfe6cu},
    {DType::kTQ1_0, 0xf66ed1f713c8ef99u},
    {DType::kTQ2_0, 0x050ff5fc50ea6838u},
    {DType::kMXFP4, 0xc65cba6bbdfe07e9u},
    {DType::kNVFP4, 0xe8a35ea7f0126858u},
    {DType::kQ1_0, 0xed0a289bf95adbccu},
    {DType::kQ2_0, 0xd00352386bc44943u},
};

TEST(RowCodecTest, DecodesAnyBytesAsTheReferenceDoes) {
  constexpr size_t kBlocks = 512;
  for (const DecodedHash& expected : kDecoded) {
    const DTypeInfo& info = Info(expected.dtype);
    IntegerRandom random(99);
    std::vector<std::byte> bytes(kBlocks * info.block_bytes);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.Next());
    std::vector<float> values(kBlocks * info.block_elements);
    ASSERT_EQ(DecodeRow(info.dtype, bytes.data(), absl::MakeSpan(values)), absl::OkStatus());
    for (float& value : values) value = std::isnan(value) ? 0.0f : value;
    EXPECT_EQ(XXH3_64bits(values.data(), values.size() * sizeof(float)), expected.values)
        << info.name;
  }
}

}  // namespace
}  // namespace odmoe
