#include "services/inference/tokenizer/tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Tokenizer> MakeTokenizer(const GgufMetadata& metadata) {
  auto tokenizer = Tokenizer::Create(metadata);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

GgufMetadata ChatMetadata() {
  GgufMetadata metadata =
      MakeMetadata({.merges = {"h i"},
                    .special = {{"<bos>", TokenType::kControl},
                                {"<|im_end|>", TokenType::kControl},
                                {"<tool>", TokenType::kUserDefined}}});
  metadata.Set("tokenizer.ggml.bos_token_id", GgufValue::U32(257));
  metadata.Set("tokenizer.ggml.eos_token_id", GgufValue::U32(258));
  metadata.Set("tokenizer.ggml.add_bos_token", GgufValue::Bool(true));
  return metadata;
}

TEST(TokenizerTest, BosIsAddedWhereTheModelWantsItAndTheCallerLetsIt) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  EXPECT_THAT(*tokenizer->Encode("hi", {}), ElementsAre(257, 256));
  EXPECT_THAT(*tokenizer->Encode("hi", {.add_special = false}), ElementsAre(256));
  EXPECT_THAT(*tokenizer->Encode("", {}), ElementsAre(257));
  EXPECT_THAT(*tokenizer->Encode("", {.add_special = false}), ElementsAre());
}

TEST(TokenizerTest, EosIsAddedWhereTheModelWantsIt) {
  GgufMetadata metadata = ChatMetadata();
  metadata.Set("tokenizer.ggml.add_eos_token", GgufValue::Bool(true));
  EXPECT_THAT(*MakeTokenizer(metadata)->Encode("hi", {}), ElementsAre(257, 256, 258));
}

TEST(TokenizerTest, SpecialNamesAreTokensOnlyWhereParsed) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  const std::string text = "hi<|im_end|><tool>hi";
  EXPECT_THAT(*tokenizer->Encode(text, {.add_special = false}), ElementsAre(256, 258, 259, 256));
  const auto plain = tokenizer->Encode(text, {.add_special = false, .parse_special = false});
  ASSERT_EQ(plain->size(), 1u + 10 + 1 + 1);
  EXPECT_EQ(plain->at(11), 259) << "user-defined tokens are recognized always";
  EXPECT_EQ(*tokenizer->Decode(*plain), text);
}

TEST(TokenizerTest, ControlTokensAreDecodedByNameAndKnownAsSuch) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  EXPECT_EQ(*tokenizer->Decode({257, 256, 258}), "<bos>hi<|im_end|>");
  EXPECT_TRUE(tokenizer->IsControl(258));
  EXPECT_FALSE(tokenizer->IsControl(256));
  EXPECT_FALSE(tokenizer->IsControl(-7));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(258));
}

TEST(TokenizerTest, TokenOutsideTheVocabularyIsRefused) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  for (TokenId token : {-1, 260, INT32_MAX, INT32_MIN}) {
    const auto text = tokenizer->Decode({0, token});
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(text.status().message()), HasSubstr("position 1"));
  }
}

TEST(TokenizerTest, TextThatIsNotUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  const auto tokens = tokenizer->Encode("hi \xC3(", {});
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokens.status().message()), HasSubstr("byte 3"));
}

TEST(TokenizerTest, NulBytesAreText) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  const std::string text("a\0b", 3);
  const auto tokens = tokenizer->Encode(text, {.add_special = false});
  EXPECT_THAT(*tokens, ElementsAre('a', 0, 'b'));
  EXPECT_EQ(*tokenizer->Decode(*tokens), text);
}

TEST(TokenizerTest, TextIsNormalizedWhereThePreTokenizerSaysSo) {
  const std::string decomposed = "e\u0301";
  EXPECT_THAT(*MakeTokenizer(MakeMetadata({.pre = "qwen2"}))->Encode(decomposed, {}),
              ElementsAre(0xC3, 0xA9));
  EXPECT_THAT(*MakeTokenizer(MakeMetadata({.pre = "gpt-2"}))->Encode(decomposed, {}),
              ElementsAre('e', 0xCC, 0x81));
}

TEST(TokenizerTest, WholePieceIsOneTokenWhereMergesAreIgnored) {
  // "abc" cannot be reached: "b c" goes first, and nothing joins "a" to "bc".
  const std::vector<std::string> merges = {"b c", "a b", "ab c"};
  EXPECT_THAT(
      *MakeTokenizer(MakeMetadata({.pre = "llama-bpe", .merges = merges}))->Encode("abc", {}),
      ElementsAre(258));
  EXPECT_THAT(*MakeTokenizer(MakeMetadata({.pre = "gpt-2", .merges = merges}))->Encode("abc", {}),
              ElementsAre('a', 256));
}

TEST(TokenizerTest, UnknownFamiliesAreUnimplementedByName) {
  GgufMetadata metadata = MakeMetadata({.pre = "made-up"});
  auto tokenizer = Tokenizer::Create(metadata);
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("'made-up'"));
  metadata.Set("tokenizer.ggml.model", GgufValue::String("hybriddna"));
  tokenizer = Tokenizer::Create(metadata);
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("'hybriddna'"));
}

// A merge per character, all in one piece: quadratic work here would take hours.
TEST(TokenizerTest, LongTextWithoutSpacesIsLinearithmic) {
  const auto tokenizer = MakeTokenizer(MakeMetadata({.merges = {"a b", "ab ab", "a a", "aa aa"}}));
  std::string text(size_t{2} << 20, 'a');
  for (size_t i = 1; i < text.size() / 2; i += 2) text[i] = 'b';
  const auto tokens = tokenizer->Encode(text, {});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), text.size() / 4);
  EXPECT_EQ(*tokenizer->Decode(*tokens), text);
}

TEST(TokenizerTest, TextFullOfBeginningsOfNamesIsLinear) {
  const auto tokenizer = MakeTokenizer(ChatMetadata());
  std::string text;
  while (text.size() < size_t{1} << 20) text += "<|im_en";
  const auto tokens = tokenizer->Encode(text, {.add_special = false});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), text.size());
}

}  // namespace
}  // namespace odmoe
