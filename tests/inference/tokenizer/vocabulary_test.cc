#include "services/inference/tokenizer/vocabulary.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

TEST(VocabularyTest, NormalTokensAreBytesAndOthersTheirText) {
  const auto vocabulary = Vocabulary::Create(
      MakeMetadata({.merges = {"Ġ a"},
                    .special = {{"Ġsaid", TokenType::kUserDefined}, {"<0x0A>", TokenType::kByte}}}),
      {});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->Piece(256), " a");
  EXPECT_EQ(vocabulary->Piece(257), "Ġsaid");
  EXPECT_EQ(vocabulary->Piece(258), "\n");
  EXPECT_EQ(vocabulary->Piece(259), "");
  EXPECT_EQ(vocabulary->Piece(-1), "");
}

TEST(VocabularyTest, EndTokensAreThoseNamedAndThoseKnown) {
  GgufMetadata metadata = MakeMetadata({.special = {{"<eos>", TokenType::kControl},
                                                    {"<|im_end|>", TokenType::kControl},
                                                    {"<|im_start|>", TokenType::kControl},
                                                    {"<|eot_id|>", TokenType::kUserDefined}}});
  metadata.Set("tokenizer.ggml.eos_token_id", GgufValue::U32(256));
  const auto vocabulary = Vocabulary::Create(metadata, {});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_TRUE(vocabulary->IsEndOfGeneration(256));
  EXPECT_TRUE(vocabulary->IsEndOfGeneration(257));
  EXPECT_FALSE(vocabulary->IsEndOfGeneration(258));
  EXPECT_FALSE(vocabulary->IsEndOfGeneration(259)) << "user-defined tokens are text";
  EXPECT_FALSE(vocabulary->IsEndOfGeneration(-1));
}

TEST(VocabularyTest, WithoutTypesEveryTokenIsNormal) {
  GgufMetadata with_types = MakeMetadata({});
  GgufMetadata metadata;
  for (const auto& [key, value] : with_types.entries()) {
    if (key != "tokenizer.ggml.token_type") metadata.Set(key, value);
  }
  const auto vocabulary = Vocabulary::Create(metadata, {});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->type(0), TokenType::kNormal);
}

struct BadKey {
  std::string key;
  GgufValue value;
};

class BadMetadataTest : public testing::TestWithParam<BadKey> {};

TEST_P(BadMetadataTest, IsRefusedByName) {
  GgufMetadata metadata = MakeMetadata({});
  metadata.Set(GetParam().key, GetParam().value);
  const auto vocabulary = Vocabulary::Create(metadata, {});
  EXPECT_EQ(vocabulary.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(vocabulary.status().message()), HasSubstr(GetParam().key));
}

INSTANTIATE_TEST_SUITE_P(
    Keys, BadMetadataTest,
    testing::Values(BadKey{"tokenizer.ggml.tokens", GgufValue::U32(3)},
                    BadKey{"tokenizer.ggml.tokens", GgufValue::Strings({})},
                    BadKey{"tokenizer.ggml.token_type", GgufValue::I32s({1, 1})},
                    BadKey{"tokenizer.ggml.token_type", GgufValue::Strings({"normal"})},
                    BadKey{"tokenizer.ggml.token_type",
                           GgufValue::I32s(std::vector<int64_t>(256, 7))},
                    BadKey{"tokenizer.ggml.token_type",
                           GgufValue::I32s(std::vector<int64_t>(256, -1))},
                    BadKey{"tokenizer.ggml.bos_token_id", GgufValue::U32(256)},
                    BadKey{"tokenizer.ggml.eos_token_id", GgufValue::I32(-5)},
                    BadKey{"tokenizer.ggml.eot_token_id", GgufValue::String("x")},
                    BadKey{"tokenizer.ggml.add_bos_token", GgufValue::U32(1)},
                    BadKey{"tokenizer.ggml.add_bos_token", GgufValue::Bool(true)}));

TEST(VocabularyTest, TokenIdOfAllOnesMeansNone) {
  GgufMetadata metadata = MakeMetadata({});
  metadata.Set("tokenizer.ggml.bos_token_id", GgufValue::U32(0xFFFFFFFF));
  const auto vocabulary = Vocabulary::Create(metadata, {});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->roles().bos, -1);
}

TEST(VocabularyTest, MissingTokensAreNotFound) {
  EXPECT_EQ(Vocabulary::Create(GgufMetadata(), {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace odmoe
