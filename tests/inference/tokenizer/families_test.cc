// The families beside byte-level BPE, each on a vocabulary small enough to work out by hand.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/inference/tokenizer/tokenizer.h"
#include "tests/inference/tokenizer/piece_vocabulary.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr TokenizeOptions kPlain = {.add_special = false, .parse_special = false};
constexpr TokenId kFirst = 259;  // of the pieces after WithBytes

std::unique_ptr<Tokenizer> Make(const GgufMetadata& metadata) {
  auto tokenizer = Tokenizer::Create(metadata);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<TokenId> Tokens(const Tokenizer& tokenizer, const std::string& text) {
  const auto tokens = tokenizer.Encode(text, kPlain);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return tokens.ok() ? *tokens : std::vector<TokenId>();
}

TEST(SentencePieceBpeTest, TheBestScoreGoesFirstAndOfEqualOnesTheLeftmost) {
  GgufMetadata metadata = MakeTextMetadata(
      "llama", WithBytes({{"a", -9}, {"b", -9}, {"c", -9}, {"ab", -2}, {"bc", -1}, {"aa", -3}}));
  metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false));
  const auto tokenizer = Make(metadata);
  EXPECT_THAT(Tokens(*tokenizer, "abc"), ElementsAre(kFirst, kFirst + 4));
  EXPECT_THAT(Tokens(*tokenizer, "aaa"), ElementsAre(kFirst + 5, kFirst));
}

TEST(SentencePieceBpeTest, SpacesAreMarkedAndOneIsPutInFront) {
  const auto tokenizer = Make(MakeTextMetadata(
      "llama", WithBytes({{"▁", -9}, {"▁a", -1}, {"a", -9}, {"▁▁", -2}})));
  EXPECT_THAT(Tokens(*tokenizer, "a a"), ElementsAre(kFirst + 1, kFirst + 1));
  EXPECT_THAT(Tokens(*tokenizer, "  a"), ElementsAre(kFirst + 3, kFirst + 1));
  EXPECT_THAT(Tokens(*tokenizer, ""), IsEmpty());
  EXPECT_EQ(*tokenizer->Decode(Tokens(*tokenizer, "a  a")), "a  a");
  EXPECT_EQ(tokenizer->Piece(kFirst + 1), " a");
}

// A token reaches over the border between words, so words cannot be merged one by one.
TEST(SentencePieceBpeTest, TokensMayReachOverSpaces) {
  GgufMetadata metadata = MakeTextMetadata(
      "llama", WithBytes({{"a", -9}, {"▁", -9}, {"▁a", -2}, {"a▁", -1}, {"a▁a", -3}}));
  metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false));
  EXPECT_THAT(Tokens(*Make(metadata), "a a"), ElementsAre(kFirst + 4));
}

TEST(SentencePieceBpeTest, WhatNoTokenWritesIsItsBytes) {
  GgufMetadata metadata = MakeTextMetadata("llama", WithBytes({{"a", -1}}));
  metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false));
  const auto tokenizer = Make(metadata);
  EXPECT_THAT(Tokens(*tokenizer, "aé"), ElementsAre(kFirst, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(*tokenizer->Decode({3 + 0xC3, 3 + 0xA9}), "é");
}

TEST(SentencePieceBpeTest, WithoutByteTokensItIsUnknown) {
  GgufMetadata metadata =
      MakeTextMetadata("llama", {{"<unk>", 0, TokenType::kUnknown}, {"a", -1}, {"▁", -1}});
  EXPECT_THAT(Tokens(*Make(metadata), "aé"), ElementsAre(2, 1, 0));
  metadata.Set("tokenizer.ggml.unknown_token_id", GgufValue::U32(UINT32_MAX));
  const auto refused = Tokenizer::Create(metadata);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("<0x00>"));
}

TEST(SentencePieceBpeTest, TextDoesNotBecomeAControlTokenByMerging) {
  const auto tokenizer = Make(MakeTextMetadata(
      "llama", WithBytes({{"<s", -1}, {">", -1}, {"▁", -1}})));
  EXPECT_THAT(Tokens(*tokenizer, "<s>"), ElementsAre(kFirst + 2, kFirst, kFirst + 1));
  EXPECT_THAT(*tokenizer->Encode("<s>", {.add_special = false}), ElementsAre(1));
}

TEST(SentencePieceBpeTest, BosIsAddedUnlessTheFileSaysNo) {
  GgufMetadata metadata = MakeTextMetadata("llama", WithBytes({{"▁", -1}}));
  EXPECT_THAT(*Make(metadata)->Encode("", {}), ElementsAre(1));
  metadata.Set("tokenizer.ggml.add_bos_token", GgufValue::Bool(false));
  metadata.Set("tokenizer.ggml.add_eos_token", GgufValue::Bool(true));
  EXPECT_THAT(*Make(metadata)->Encode("", {}), ElementsAre(2));
}

TEST(SentencePieceBpeTest, NamesOfPhi3SwallowTheSpacesAfterThem) {
  GgufMetadata metadata = MakeTextMetadata(
      "llama", WithBytes({{"▁", -1}, {"a", -1}, {"<|user|>", 0, TokenType::kUserDefined}}));
  EXPECT_THAT(Tokens(*Make(metadata), "<|user|> \na"),
              ElementsAre(kFirst + 2, kFirst, kFirst, 3 + '\n', kFirst + 1));
  metadata.Set("general.name", GgufValue::String("Phi3 mini"));
  EXPECT_THAT(Tokens(*Make(metadata), "<|user|> \na"),
              ElementsAre(kFirst + 2, kFirst, kFirst + 1));
}

GgufMetadata UnigramMetadata() {
  return MakeTextMetadata("t5", {{"<pad>", 0, TokenType::kControl},
                                 {"</s>", 0, TokenType::kControl},
                                 {"<unk>", 0, TokenType::kUnknown},
                                 {"▁", -2},
                                 {"a", -2},
                                 {"b", -2},
                                 {"ab", -3},
                                 {"▁ab", -6}});
}

TEST(UnigramTest, TheGreatestSumOfScoresWins) {
  const auto tokenizer = Make(UnigramMetadata());
  EXPECT_THAT(Tokens(*tokenizer, "ab"), ElementsAre(6));      // -3 before -4
  EXPECT_THAT(Tokens(*tokenizer, " ab"), ElementsAre(3, 6));  // -5 before -6
}

TEST(UnigramTest, ARunOfUnknownCharactersIsOneToken) {
  EXPECT_THAT(Tokens(*Make(UnigramMetadata()), "aéèb"), ElementsAre(4, 2, 5));
}

TEST(UnigramTest, SpacesArePrefixedAndMergedAsTheFileSays) {
  GgufMetadata metadata = UnigramMetadata();
  metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(true));
  EXPECT_THAT(Tokens(*Make(metadata), "a  a"), ElementsAre(3, 4, 3, 3, 4));
  metadata.Set("tokenizer.ggml.remove_extra_whitespaces", GgufValue::Bool(true));
  EXPECT_THAT(Tokens(*Make(metadata), "  a  a "), ElementsAre(3, 4, 3, 4));
  EXPECT_THAT(*Make(metadata)->Encode("a", {}), ElementsAre(3, 4, 1)) << "EOS comes after a text";
}

// A double array of one entry, "b" to "a": the root's children are at unit 256, 'b' at 256 ^ 98,
// and its value at that place ^ 0.
std::vector<int64_t> MapOfBToA() {
  std::vector<uint32_t> units(1024, 0);
  units[0] = 256 << 10;
  const uint32_t child = 256 ^ 'b';
  units[child] = uint32_t{512} << 10 | 1 << 8 | 'b';
  units[child ^ 512] = uint32_t{1} << 31 | 0;
  std::vector<int64_t> bytes;
  const auto append = [&](uint32_t word) {
    for (int i = 0; i < 4; ++i) bytes.push_back(word >> (8 * i) & 0xFF);
  };
  append(static_cast<uint32_t>(units.size() * 4));
  for (uint32_t unit : units) append(unit);
  bytes.push_back('a');
  bytes.push_back(0);
  return bytes;
}

TEST(UnigramTest, TextIsNormalizedByTheCharacterMap) {
  GgufMetadata metadata = UnigramMetadata();
  metadata.Set("tokenizer.ggml.precompiled_charsmap", GgufValue::I32s(MapOfBToA()));
  EXPECT_THAT(Tokens(*Make(metadata), "bab"), ElementsAre(4, 4, 4));
}

TEST(UnigramTest, BrokenCharacterMapsAreRefusedOrReplaceNothing) {
  GgufMetadata metadata = UnigramMetadata();
  const std::vector<int64_t> good = MapOfBToA();
  const std::vector<std::vector<int64_t>> bad = {
      {1, 2}, {0, 0, 0, 128}, {3, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 'a'},
      std::vector<int64_t>(good.begin(), good.end() - 1)};
  for (const auto& bytes : bad) {
    metadata.Set("tokenizer.ggml.precompiled_charsmap", GgufValue::I32s(bytes));
    const auto refused = Tokenizer::Create(metadata);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("precompiled_charsmap"));
  }
  // An array that leads out of itself.
  metadata.Set("tokenizer.ggml.precompiled_charsmap",
               GgufValue::I32s({4, 0, 0, 0, 255, 255, 255, 127, 'a', 0}));
  EXPECT_THAT(Tokens(*Make(metadata), "ba"), ElementsAre(5, 4));
}

GgufMetadata BertMetadata() {
  GgufMetadata metadata = MakeTextMetadata("bert", {{"[UNK]", 0, TokenType::kControl},
                                                    {"[CLS]", 0, TokenType::kControl},
                                                    {"[SEP]", 0, TokenType::kControl},
                                                    {"▁un"},
                                                    {"known"},
                                                    {"▁eau"},
                                                    {"▁日"},
                                                    {"▁,"}});
  metadata.Set("tokenizer.ggml.unknown_token_id", GgufValue::U32(0));
  metadata.Set("tokenizer.ggml.bos_token_id", GgufValue::U32(1));
  metadata.Set("tokenizer.ggml.seperator_token_id", GgufValue::U32(2));
  return metadata;
}

TEST(WordPieceTest, WordsAreCutIntoTheirLongestBeginnings) {
  const auto tokenizer = Make(BertMetadata());
  EXPECT_THAT(Tokens(*tokenizer, " unknown  UN"), ElementsAre(3, 4, 3));
  EXPECT_THAT(Tokens(*tokenizer, "unknowns un"), ElementsAre(0, 3)) << "all of the word or nothing";
  EXPECT_THAT(*tokenizer->Encode("un", {}), ElementsAre(1, 3, 2));
}

TEST(WordPieceTest, AccentsGoPunctuationAndIdeographsStandAlone) {
  GgufMetadata metadata = BertMetadata();
  EXPECT_THAT(Tokens(*Make(metadata), "éàü,日日\x01" "un"), ElementsAre(5, 7, 6, 6, 3));
  EXPECT_THAT(Tokens(*Make(metadata), "EÁÛ"), ElementsAre(5));
  metadata.Set("tokenizer.ggml.normalizer.lowercase", GgufValue::Bool(false));
  EXPECT_THAT(Tokens(*Make(metadata), "UN eáu"), ElementsAre(0, 0));
}

TEST(LongestMatchTest, TakesTheLongestTokenAndKnowsEscapes) {
  const auto tokenizer =
      Make(MakeTextMetadata("rwkv", {{"a"}, {"ab"}, {"\\n"}, {"\\xc3"}, {"\\xa9b"}, {"\\\\"}}));
  EXPECT_THAT(Tokens(*tokenizer, "aab\né" "b\\?"), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(*tokenizer->Decode({3, 4}), "éb");
}

TEST(PlamoLatticeTest, TheCheapestWayWinsAndOfEqualOnesTheLongerToken) {
  const auto tokenizer = Make(MakeTextMetadata(
      "plamo2", WithBytes({{"a", -1}, {"b", -1}, {"ab", -2}, {"bc", -1}, {"c", -5}})));
  EXPECT_THAT(Tokens(*tokenizer, "ab"), ElementsAre(kFirst + 2));
  EXPECT_THAT(Tokens(*tokenizer, "abc"), ElementsAre(kFirst, kFirst + 3));
  EXPECT_THAT(Tokens(*tokenizer, "\xEF\xBB\xBF" "aé"),
              ElementsAre(kFirst, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(Tokenizer::Create(MakeTextMetadata("plamo2", {{"a", -1}})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PlamoLatticeTest, WhatATokenCutInsideACharacterLeavesIsBytes) {
  std::vector<TextToken> tokens = WithBytes({{"a", -1}, {"\xE6\x97", -1, TokenType::kUserDefined}});
  const auto tokenizer = Make(MakeTextMetadata("plamo2", std::move(tokens)));
  EXPECT_THAT(Tokens(*tokenizer, "a日a"), ElementsAre(kFirst, kFirst + 1, 3 + 0xA5, kFirst));
}

TEST(MarkedSpacesTest, GemmaMergesTextAndTakesRunsOfLineFeedsWhole) {
  GgufMetadata metadata = MakeTextMetadata(
      "gemma4", WithBytes({{"▁"}, {"a"}, {"▁a"}, {"\n"}, {"\n\n"}}));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings({"▁ a"}));
  const auto tokenizer = Make(metadata);
  EXPECT_THAT(Tokens(*tokenizer, "a a\n\n\n\né"),
              ElementsAre(kFirst + 1, kFirst + 2, kFirst + 3, kFirst + 3, kFirst + 3, kFirst + 3,
                          3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(Tokens(*tokenizer, "\n\n"), ElementsAre(kFirst + 4));
  EXPECT_EQ(*tokenizer->Decode(Tokens(*tokenizer, " a")), " a");
}

TEST(WhitespaceTest, SpacesSeparateAndAreNoTokens) {
  GgufMetadata metadata = MakeTextMetadata("whitespace", {{"a"}, {"b"}, {"ab"}});
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings({"a b"}));
  EXPECT_THAT(Tokens(*Make(metadata), " ab\n a\u3000b "), ElementsAre(2, 0, 1));
}

}  // namespace
}  // namespace odmoe
