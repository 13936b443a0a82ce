#include "services/inference/tokenizer/pair_merger.h"

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Merging {
  Vocabulary vocabulary;
  PairMerger merger;

  std::vector<std::string> Pieces(const std::string& text) const {
    PairMerger::Scratch scratch;
    std::vector<TokenId> tokens;
    merger.Merge(text, scratch, tokens);
    std::vector<std::string> pieces;
    for (TokenId token : tokens) pieces.emplace_back(vocabulary.Piece(token));
    return pieces;
  }
};

Merging MakeMerging(const std::vector<std::string>& merges) {
  auto vocabulary = Vocabulary::Create(MakeMetadata({.merges = merges}), {});
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  auto merger = PairMerger::Create(*vocabulary, merges);
  EXPECT_TRUE(merger.ok()) << merger.status();
  return {*std::move(vocabulary), *std::move(merger)};
}

TEST(PairMergerTest, LowestRankGoesFirst) {
  EXPECT_THAT(MakeMerging({"b c", "a b"}).Pieces("abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(MakeMerging({"a b", "b c"}).Pieces("abc"), ElementsAre("ab", "c"));
}

TEST(PairMergerTest, OfEqualRankTheLeftmostGoesFirst) {
  EXPECT_THAT(MakeMerging({"a a"}).Pieces("aaaaa"), ElementsAre("aa", "aa", "a"));
}

TEST(PairMergerTest, MergesBuildOnMerges) {
  const Merging merging = MakeMerging({"h e", "l l", "he ll", "hell o"});
  EXPECT_THAT(merging.Pieces("hello"), ElementsAre("hello"));
  EXPECT_THAT(merging.Pieces("hellhe"), ElementsAre("hell", "he"));
}

TEST(PairMergerTest, BytesWithoutMergesAreThemselves) {
  EXPECT_THAT(MakeMerging({}).Pieces("é!"), ElementsAre("\xC3", "\xA9", "!"));
  EXPECT_THAT(MakeMerging({}).Pieces(""), ElementsAre());
}

// The definition, taken literally.
std::vector<std::string> MergeLiterally(const std::string& text,
                                        const std::vector<std::string>& merges) {
  std::vector<std::string> pieces;
  for (char byte : text) pieces.emplace_back(1, byte);
  for (;;) {
    size_t best_rank = merges.size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank] == pieces[i] + " " + pieces[i + 1]) {
          best_rank = rank;
          best = i;
        }
      }
    }
    if (best_rank == merges.size()) return pieces;
    pieces[best] += pieces[best + 1];
    pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(PairMergerTest, AgreesWithTheDefinitionOnRandomVocabularies) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> known = {"a", "b", "c"};
    std::vector<std::string> merges;
    std::set<std::string> wholes;
    for (int i = 0; i < 12; ++i) {
      const std::string left = known[random() % known.size()];
      const std::string right = known[random() % known.size()];
      if (!wholes.insert(left + right).second) continue;
      merges.push_back(left + " " + right);
      known.push_back(left + right);
    }
    const Merging merging = MakeMerging(merges);
    for (int texts = 0; texts < 20; ++texts) {
      std::string text;
      for (size_t i = random() % 60; i > 0; --i) text += static_cast<char>('a' + random() % 3);
      ASSERT_EQ(merging.Pieces(text), MergeLiterally(text, merges)) << text;
    }
  }
}

TEST(PairMergerTest, MergesThatContradictTheVocabularyAreRefused) {
  const auto vocabulary = Vocabulary::Create(MakeMetadata({.merges = {"a b"}}), {});
  ASSERT_TRUE(vocabulary.ok());
  for (const std::string merge : {"ab", "a ", "a c", "zz b", "", " ", "a 日"}) {
    const auto merger = PairMerger::Create(*vocabulary, {"a b", merge});
    EXPECT_EQ(merger.status().code(), absl::StatusCode::kInvalidArgument) << merge;
    EXPECT_THAT(std::string(merger.status().message()), HasSubstr("merges[1]"));
  }
}

std::vector<TokenId> Tokens(const PairMerger& merger, absl::string_view text) {
  PairMerger::Scratch scratch;
  std::vector<TokenId> tokens;
  merger.Merge(text, scratch, tokens);
  return tokens;
}

TEST(PairMergerTest, ByteWithoutTokenIsUnknownOrLeftOut) {
  GgufMetadata metadata = MakeMetadata({.special = {{"<unk>", TokenType::kUnknown}}});
  std::vector<std::string> tokens = **metadata.GetStrings("tokenizer.ggml.tokens");
  tokens['q'] = "qqq";
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(tokens));
  const auto without = Vocabulary::Create(metadata, {});
  EXPECT_THAT(Tokens(*PairMerger::Create(*without, {}), "aqb"), ElementsAre('a', 'b'));
  metadata.Set("tokenizer.ggml.unknown_token_id", GgufValue::U32(256));
  const auto with = Vocabulary::Create(metadata, {});
  const auto merger = PairMerger::Create(*with, {});
  ASSERT_TRUE(merger.ok()) << merger.status();
  EXPECT_THAT(Tokens(*merger, "aq"), ElementsAre('a', 256));
}

TEST(PairMergerTest, VocabularyWithoutBytesIsRefused) {
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings({"hello", "world"}));
  const auto merger = PairMerger::Create(*Vocabulary::Create(metadata, {}), {});
  EXPECT_EQ(merger.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(merger.status().message()), HasSubstr("256 bytes"));
}

TEST(PairMergerTest, MergesMayMakeAddedTokens) {
  GgufMetadata metadata = MakeMetadata({.special = {{"ab", TokenType::kUserDefined},
                                                    {"abab", TokenType::kControl}}});
  const auto merger =
      PairMerger::Create(*Vocabulary::Create(metadata, {}), {"a b", "ab ab"});
  ASSERT_TRUE(merger.ok()) << merger.status();
  EXPECT_THAT(Tokens(*merger, "ababab"), ElementsAre(257, 256));
  EXPECT_EQ(merger->Find("ab"), 256);
  EXPECT_EQ(merger->Find("abab"), -1) << "a text does not become a control token by its name";
}

TEST(PairMergerTest, WithoutByteCharactersTokensAreTextAndTheRestIsBytes) {
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.tokens",
               GgufValue::Strings({"é", "t", "té", "<0xE2>", "<0x82>", "<0xAC>"}));
  const auto merger =
      PairMerger::Create(*Vocabulary::Create(metadata, {}), {"t é"}, /*byte_characters=*/false);
  ASSERT_TRUE(merger.ok()) << merger.status();
  EXPECT_THAT(Tokens(*merger, "été€!"), ElementsAre(0, 2, 3, 4, 5));
}

}  // namespace
}  // namespace odmoe
