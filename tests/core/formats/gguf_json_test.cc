#include "services/core/formats/gguf_json.h"

#include <bit>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

// The bytes GGUF stores: equality that tells NaNs and zeros apart.
std::string Bytes(const GgufMetadata& metadata) {
  GgufHeader header;
  header.metadata = metadata;
  return EncodeGgufHeader(header).value();
}

GgufMetadata ThroughJson(const GgufMetadata& metadata) {
  const auto json = ParseJson(EncodeGgufMetadata(metadata), "test");
  EXPECT_TRUE(json.ok()) << json.status();
  auto decoded = DecodeGgufMetadata(*json, "test");
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  return decoded.value_or(GgufMetadata());
}

GgufValue Floats(GgufType type, std::vector<double> values) {
  GgufValue value;
  value.type = type;
  value.is_array = true;
  value.array = std::move(values);
  return value;
}

TEST(GgufJsonTest, BringsBackEveryBitOfEveryFloat) {
  std::vector<double> singles, doubles;
  uint64_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    singles.push_back(WidenF32(static_cast<uint32_t>(state >> 32)));
    doubles.push_back(std::bit_cast<double>(state ^ (state >> 29)));
  }
  for (uint32_t bits : {0x00000000u, 0x80000000u, 0x00000001u, 0x7f7fffffu, 0x7f800000u,
                        0xff800000u, 0x7fc00000u, 0x7f800001u, 0xffc12345u, 0x3dcccccdu}) {
    singles.push_back(WidenF32(bits));
  }
  for (double d : {0.0, -0.0, 5e-324, 1.7976931348623157e308,
                   std::numeric_limits<double>::infinity(),
                   std::bit_cast<double>(uint64_t{0x7ff0000000000001})}) {
    doubles.push_back(d);
  }
  GgufMetadata metadata;
  metadata.Set("singles", Floats(GgufType::kF32, std::move(singles)));
  metadata.Set("doubles", Floats(GgufType::kF64, std::move(doubles)));
  EXPECT_EQ(Bytes(ThroughJson(metadata)), Bytes(metadata));
}

TEST(GgufJsonTest, BringsBackIntegersAtTheirEnds) {
  GgufMetadata metadata;
  const auto add = [&](GgufType type, GgufValue::Scalar scalar) {
    GgufValue value;
    value.type = type;
    value.scalar = std::move(scalar);
    metadata.Append(absl::StrCat("key", metadata.entries().size()), std::move(value));
  };
  add(GgufType::kU8, uint64_t{255});
  add(GgufType::kI8, int64_t{-128});
  add(GgufType::kI16, int64_t{32767});
  add(GgufType::kU32, uint64_t{4294967295});
  add(GgufType::kI32, int64_t{-2147483648});
  add(GgufType::kU64, ~uint64_t{0});
  add(GgufType::kI64, std::numeric_limits<int64_t>::min());
  add(GgufType::kI64, std::numeric_limits<int64_t>::max());
  add(GgufType::kBool, uint64_t{1});
  EXPECT_EQ(ThroughJson(metadata).entries(), metadata.entries());
}

TEST(GgufJsonTest, KeepsOrderAndStringsThatAreNotText) {
  GgufMetadata metadata;
  metadata.Set("z", GgufValue::String("last letter first"));
  metadata.Set("a",
               GgufValue::Strings({"\xc4\xa0the", "\xff\xfe", std::string("\0x", 2), "\"\\\n"}));
  metadata.Set(std::string("\xff key", 5), GgufValue::Bool(false));
  metadata.Set("empty", GgufValue::Strings({}));
  EXPECT_EQ(ThroughJson(metadata).entries(), metadata.entries());
}

TEST(GgufJsonTest, HoldsAVocabularyOfRealSize) {
  std::vector<std::string> tokens;
  for (int i = 0; i < 163840; ++i) tokens.push_back(absl::StrCat("token", i));
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(tokens));
  EXPECT_EQ(**ThroughJson(metadata).GetStrings("tokenizer.ggml.tokens"), tokens);
}

TEST(GgufJsonTest, RefusesWhatTheEncoderNeverWrites) {
  for (const char* text :
       {R"({})",
        R"([1])",
        R"([{}])",
        R"([{"key":"k"}])",
        R"([{"key":"","type":"u8","value":1}])",
        R"([{"key":"k","type":"u9","value":1}])",
        R"([{"key":"k","type":"array","values":[]}])",
        R"([{"key":"k","type":"u8","value":256}])",
        R"([{"key":"k","type":"u8","value":-1}])",
        R"([{"key":"k","type":"i8","value":128}])",
        R"([{"key":"k","type":"i8","value":-129}])",
        R"([{"key":"k","type":"u8","value":1.5}])",
        R"([{"key":"k","type":"bool","value":1}])",
        R"([{"key":"k","type":"string","value":1}])",
        R"([{"key":"k","type":"string","value":{"base64":"?"}}])",
        R"([{"key":"k","type":"f32","value":{"bits":"7fc0"}}])",
        R"([{"key":"k","type":"f32","value":"1"}])",
        R"([{"key":"k","type":"u8","values":1}])",
        R"([{"key":"k","type":"u8","values":["1"]}])",
        R"([{"key":"k","type":"u8","value":1},{"key":"k","type":"u8","value":1}])"}) {
    const auto json = ParseJson(text, "test");
    ASSERT_TRUE(json.ok()) << text;
    EXPECT_EQ(DecodeGgufMetadata(*json, "test").status().code(), absl::StatusCode::kDataLoss)
        << text;
  }
}

}  // namespace
}  // namespace odmoe
