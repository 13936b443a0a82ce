#include "services/core/formats/gguf_reader.h"

#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/formats/bytes_file.h"
#include "tests/core/formats/gguf_bytes.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<GgufReader>> Open(const ByteString& bytes) {
  return GgufReader::Open(BytesFile(bytes.bytes()));
}

TEST(GgufReaderTest, ReadsKeysAndTensorsOfVersions2And3) {
  for (uint32_t version : {2u, 3u}) {
    const auto reader = Open(ValidGguf(version));
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->version(), version);
    EXPECT_EQ(*(*reader)->metadata().GetString("general.architecture"), "deepseek2");
    EXPECT_THAT(*(*reader)->metadata().GetInts("numbers"), ElementsAre(-1, 0, 32767));
    ASSERT_EQ((*reader)->tensors().size(), 2u);
    const GgufTensor* b = (*reader)->Find("b");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->rows(), 2);
    float values[2];
    ASSERT_EQ((*reader)->ReadTensor(
                  *b, 8, absl::MakeSpan(reinterpret_cast<std::byte*>(values), sizeof(values))),
              absl::OkStatus());
    EXPECT_THAT(values, ElementsAre(6.0f, 7.0f));
    EXPECT_EQ((*reader)->Find("c"), nullptr);
  }
}

TEST(GgufReaderTest, ReadsATensorOnlyWithinItsOwnBytes) {
  const auto reader = Open(ValidGguf());
  std::byte out[8];
  const GgufTensor& a = (*reader)->tensors()[0];
  EXPECT_EQ((*reader)->ReadTensor(a, 8, absl::MakeSpan(out)).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*reader)->ReadTensor(a, ~uint64_t{0}, absl::MakeSpan(out)).code(),
            absl::StatusCode::kOutOfRange);
}

TEST(GgufReaderTest, KeepsEveryTypeOfValue) {
  ByteString bytes = GgufHeaderBytes(3, 0, 12);
  GgufKey(bytes, "u8", GgufType::kU8).Add<uint8_t>(255);
  GgufKey(bytes, "i8", GgufType::kI8).Add<int8_t>(-128);
  GgufKey(bytes, "u16", GgufType::kU16).Add<uint16_t>(65535);
  GgufKey(bytes, "i16", GgufType::kI16).Add<int16_t>(-32768);
  GgufKey(bytes, "u32", GgufType::kU32).Add<uint32_t>(4294967295u);
  GgufKey(bytes, "i32", GgufType::kI32).Add<int32_t>(-5);
  GgufKey(bytes, "f32", GgufType::kF32).Add<uint32_t>(0x7f800001);  // a signalling NaN
  GgufKey(bytes, "bool", GgufType::kBool).Add<uint8_t>(1);
  GgufKey(bytes, "text", GgufType::kString).AddString("\xff\0x");
  GgufKey(bytes, "u64", GgufType::kU64).Add(~uint64_t{0});
  GgufKey(bytes, "i64", GgufType::kI64).Add(std::numeric_limits<int64_t>::min());
  GgufKey(bytes, "f64", GgufType::kF64).Add(1e300);
  const auto reader = Open(bytes);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const GgufMetadata& metadata = (*reader)->metadata();
  EXPECT_EQ(*metadata.GetU32("u8"), 255u);
  EXPECT_EQ(*metadata.GetU32("u32"), 4294967295u);
  EXPECT_EQ(metadata.GetU32("i8").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetU32("u64").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetU32("bool").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(*metadata.GetBool("bool"));
  EXPECT_EQ(NarrowToF32Bits(std::get<double>(metadata.Find("f32")->scalar)), 0x7f800001u);
  EXPECT_EQ(std::get<int64_t>(metadata.Find("i64")->scalar), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(*metadata.GetU32Or("none", 7), 7u);
  EXPECT_EQ(metadata.GetU32Or("text", 7).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metadata.GetString("none").status().code(), absl::StatusCode::kNotFound);
}

TEST(GgufReaderTest, RefusesEveryFileCutShort) {
  const std::string whole = ValidGguf().bytes();
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(GgufReader::Open(BytesFile(whole.substr(0, length))).ok()) << length;
  }
}

TEST(GgufReaderTest, SurvivesEveryByteOfTheHeaderChanged) {
  const std::string whole = ValidGguf().bytes();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int change : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      const auto reader = GgufReader::Open(BytesFile(bytes));
      if (!reader.ok()) continue;
      for (const GgufTensor& tensor : (*reader)->tensors()) {
        std::vector<std::byte> data(tensor.bytes);
        EXPECT_EQ((*reader)->ReadTensor(tensor, 0, absl::MakeSpan(data)), absl::OkStatus());
      }
    }
  }
}

TEST(GgufReaderTest, AcceptsPaddingAtTheEndAndFilesWithoutTensors) {
  EXPECT_TRUE(Open(ValidGguf().PadTo(32)).ok());
  EXPECT_TRUE(Open(GgufHeaderBytes(3, 0, 0)).ok());
}

// One matrix of a BitNet model of a given id, and its scale `scale_at` bytes into the data.
ByteString BitnetGguf(absl::string_view architecture, uint32_t type, uint64_t scale_at) {
  ByteString bytes = GgufHeaderBytes(3, 2, 1);
  GgufKey(bytes, "general.architecture", GgufType::kString).AddString(architecture);
  GgufTensorInfo(bytes, "blk.0.attn_q.weight", {288, 32}, type, 0);
  GgufTensorInfo(bytes, "blk.0.attn_q.weight_scale", {1}, 0, scale_at);
  bytes.PadTo(32);
  for (uint64_t i = 0; i < scale_at + 32; ++i) bytes.Add<uint8_t>(0);
  return bytes;
}

// Id 39 is mxfp4, and in BitNet's models tl2 where the next tensor starts behind that.
TEST(GgufReaderTest, TellsBitnetsFormatsFromThoseThatHaveTheirIds) {
  const uint64_t mxfp4 = 288 / 32 * 17 * 32;
  const auto dtype_of = [](const ByteString& bytes) {
    const auto reader = Open(bytes);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return reader.ok() ? (*reader)->tensors()[0].dtype : DType::kF32;
  };
  static_assert(32 * 32 / 3 * 5 / 8 + 256 * 32 / 4 == 2261);
  EXPECT_EQ(dtype_of(BitnetGguf("bitnet-b1.58", 39, mxfp4)), DType::kMXFP4);
  EXPECT_EQ(dtype_of(BitnetGguf("bitnet-b1.58", 39, 2272)), DType::kTL2);
  EXPECT_EQ(dtype_of(BitnetGguf("llama", 39, mxfp4)), DType::kMXFP4);
  EXPECT_EQ(dtype_of(BitnetGguf("bitnet-b1.58", 38, 288 * 32 / 4)), DType::kTL1);
  EXPECT_FALSE(Open(BitnetGguf("llama", 39, 2272)).ok());
  EXPECT_FALSE(Open(BitnetGguf("bitnet-b1.58", 39, 2304)).ok());
  EXPECT_FALSE(Open(BitnetGguf("llama", 38, 288 * 32 / 4)).ok());
}

}  // namespace
}  // namespace odmoe
