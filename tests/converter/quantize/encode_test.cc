#include "converter/quantize/encode.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include "converter/quantize/lane_encoders.h"
#include "hwy/targets.h"
#include "services/core/tensor/convert.h"
#include "tests/converter/quantize/encode_rows.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// XXH3-64 of what ggml_quantize_chunk of the npm package @node-llama-cpp/linux-x64's
// libggml-base.so (llama.cpp b10018, baseline x86-64) writes of EncodeRowsInput: without
// importance, and with EncodeRowsImportance.
struct ReferenceHash {
  DType dtype;
  uint64_t plain;
  uint64_t weighted;
};
constexpr ReferenceHash kReference[] = {
    {DType::kQ4_0, 0xaf56336371d2dbe9u, 0x3edfec2c514ffd07u},
    {DType::kQ4_1, 0xeb7e673b2e77315du, 0x2031d30dfe894d39u},
    {DType::kQ5_0, 0xf72632221a65df53u, 0xc104d4e150bd31cau},
    {DType::kQ5_1, 0xc44467fe7d8d5aceu, 0x9f95c025139df1c7u},
    {DType::kQ8_0, 0x3d758e158f248f2au, 0x3d758e158f248f2au},
    {DType::kQ2_K, 0x2fab9e2bf62d90a1u, 0x5eb52aaa3ead4bd5u},
    {DType::kQ3_K, 0xbc3222be7288ecddu, 0xa2d5bb8b3817b93bu},
    {DType::kQ4_K, 0xf823b5793b9a8166u, 0x86f7b77c2686b8f5u},
    {DType::kQ5_K, 0xc107b37724f7ad29u, 0x674ec11c0e2981d3u},
    {DType::kQ6_K, 0x9751ba38f7210b95u, 0xf34e344ee14c59a1u},
    {DType::kIQ4_NL, 0x3124d346561bdf69u, 0xf6f65f6a7b84e746u},
    {DType::kTQ1_0, 0x7dbad4554a96f860u, 0x7dbad4554a96f860u},
    {DType::kTQ2_0, 0xcad43e76264fb794u, 0xcad43e76264fb794u},
    {DType::kMXFP4, 0x62d8c6fd90b83696u, 0x62d8c6fd90b83696u},
};

std::vector<std::byte> Encode(DType dtype, absl::Span<const float> values, int64_t columns,
                              absl::Span<const float> importance = {}) {
  std::vector<std::byte> out(values.size() / columns * *RowBytes(dtype, columns));
  EXPECT_EQ(EncodeRows(dtype, values, columns, importance, out.data()), absl::OkStatus());
  return out;
}

uint64_t Hash(const std::vector<std::byte>& bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void ForEachInstructionSet(const std::function<void()>& check) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(BestLaneEncoders().target);
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(EncodeRowsTest, InputsAreTheOnesTheReferenceEncoded) {
  const std::vector<float> values = EncodeRowsInput(), importance = EncodeRowsImportance();
  EXPECT_EQ(XXH3_64bits(values.data(), values.size() * sizeof(float)), 0x4cbf26c53da6ce10u);
  EXPECT_EQ(XXH3_64bits(importance.data(), importance.size() * sizeof(float)),
            0x619e0746372b908fu);
}

TEST(EncodeRowsTest, WritesTheReferencesBytesOnEveryInstructionSet) {
  const std::vector<float> values = EncodeRowsInput(), importance = EncodeRowsImportance();
  ForEachInstructionSet([&] {
    for (const ReferenceHash& reference : kReference) {
      SCOPED_TRACE(Info(reference.dtype).name);
      ASSERT_TRUE(CanEncode(reference.dtype));
      EXPECT_EQ(Hash(Encode(reference.dtype, values, kEncodeColumns)), reference.plain);
      EXPECT_EQ(Hash(Encode(reference.dtype, values, kEncodeColumns, importance)),
                reference.weighted);
    }
  });
}

TEST(EncodeRowsTest, GivesARowTheSameBytesInWhateverCompany) {
  const std::vector<float> values = EncodeRowsInput(), importance = EncodeRowsImportance();
  for (const ReferenceHash& reference : kReference) {
    for (const bool weighted : {false, true}) {
      const absl::Span<const float> weights = weighted ? importance : absl::Span<const float>();
      const auto together = Encode(reference.dtype, values, kEncodeColumns, weights);
      std::vector<std::byte> apart;
      // One, two, three ... rows a call.
      for (int64_t row = 0, count = 1; row < kEncodeRows; row += count, ++count) {
        const auto part = Encode(
            reference.dtype,
            absl::MakeConstSpan(values).subspan(row * kEncodeColumns, count * kEncodeColumns),
            kEncodeColumns, weights);
        apart.insert(apart.end(), part.begin(), part.end());
      }
      EXPECT_EQ(together, apart) << Info(reference.dtype).name;
    }
  }
}

TEST(EncodeRowsTest, PacksCodesWhereTheFormatsHaveThem) {
  // Sixteenths of -2: the largest magnitude gets code 0, and zero code 8.
  std::vector<float> values(32);
  for (int i = 0; i < 16; ++i) values[i] = 0.25f * static_cast<float>(i - 8);
  const auto q4 = Encode(DType::kQ4_0, values, 32);
  ASSERT_EQ(q4.size(), 18u);
  EXPECT_EQ(std::to_integer<int>(q4[0]) | std::to_integer<int>(q4[1]) << 8, F32ToF16(0.25f));
  for (int j = 0; j < 16; ++j) EXPECT_EQ(std::to_integer<int>(q4[2 + j]), j | 8 << 4) << j;

  // Powers of two times 4 * { -1, 0, 1 } are exact in every ternary format.
  std::vector<float> trits(256);
  for (int i = 0; i < 256; ++i) trits[i] = 4.0f * static_cast<float>(i % 3 - 1);
  for (const DType dtype : {DType::kTQ1_0, DType::kTQ2_0}) {
    const auto encoded = Encode(dtype, trits, 256);
    std::vector<float> decoded(256);
    ASSERT_EQ(DecodeRow(dtype, encoded.data(), absl::MakeSpan(decoded)), absl::OkStatus());
    EXPECT_EQ(decoded, trits);
  }
}

TEST(EncodeRowsTest, NamesTheFirstValueThatHasNoCode) {
  std::vector<float> values(64 * 300, 0.5f);
  std::vector<std::byte> out(values.size() * sizeof(float));
  for (const auto& [bad, name] : {std::pair{kNaN, "nan"}, std::pair{kInfinity, "inf"},
                                  std::pair{-kInfinity, "-inf"}}) {
    values[64 * 200 + 7] = bad;
    values[64 * 250] = kNaN;
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
      const absl::Status status = EncodeRows(dtype, values, 64, {}, out.data());
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr("value 12807 (row 200, column 7) is "));
      EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(" ") + name + ":"));
    }
  }
}

TEST(EncodeRowsTest, RefusesBadShapesAndImportance) {
  const std::vector<float> values(512, 0.5f);
  std::vector<std::byte> out(2048);
  const auto code = [&](DType dtype, size_t count, int64_t columns,
                        absl::Span<const float> importance) {
    return EncodeRows(dtype, absl::MakeConstSpan(values).first(count), columns, importance,
                      out.data()).code();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code(DType::kQ4_K, 512, 128, {}), invalid);   // half a block a row
  EXPECT_EQ(code(DType::kQ4_K, 384, 256, {}), invalid);   // a row and a half
  EXPECT_EQ(code(DType::kQ4_0, 512, 0, {}), invalid);
  EXPECT_EQ(code(DType::kQ4_0, 512, -32, {}), invalid);
  EXPECT_EQ(code(DType::kQ4_0, 0, 32, {}), absl::StatusCode::kOk);
  EXPECT_EQ(code(DType::kQ4_0, 512, 32, std::vector<float>(31, 1.0f)), invalid);
  for (const float bad : {-1.0f, kNaN, kInfinity}) {
    std::vector<float> importance(32, 1.0f);
    importance[5] = bad;
    const absl::Status status = EncodeRows(DType::kQ4_0, values, 32, importance, out.data());
    EXPECT_EQ(status.code(), invalid);
    EXPECT_THAT(std::string(status.message()), HasSubstr("column 5"));
  }
}

TEST(EncodeRowsTest, NamesAFormatThatIsOnlyRead) {
  const std::vector<float> values(256, 0.5f);
  std::vector<std::byte> out(2048);
  for (const DType dtype : {DType::kIQ2_XXS, DType::kQ8_K, DType::kNVFP4, DType::kI8}) {
    EXPECT_FALSE(CanEncode(dtype));
    const absl::Status status = EncodeRows(dtype, values, 256, {}, out.data());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(Info(dtype).name)));
  }
}

TEST(EncodeRowsTest, WritesPlainNumbersAsTheScalarCodeDoes) {
  const std::vector<float> values = EncodeRowsInput();
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    std::vector<std::byte> expected(*RowBytes(dtype, static_cast<int64_t>(values.size())));
    ASSERT_EQ(EncodeRow(dtype, values, expected.data()), absl::OkStatus());
    EXPECT_EQ(Encode(dtype, values, kEncodeColumns), expected) << Info(dtype).name;
  }
}

}  // namespace
}  // namespace odmoe
