#include "services/inference/tokenizer/special_tokens.h"

#include "gtest/gtest.h"
#include "tests/inference/tokenizer/byte_vocabulary.h"

namespace odmoe {
namespace {

class SpecialTokensTest : public testing::Test {
 protected:
  static constexpr TokenId kFirst = 256;

  static Vocabulary MakeVocabulary() {
    return *Vocabulary::Create(MakeMetadata({.special = {
                                                        {"<|im|>", TokenType::kControl},
                                                        {"<|im|>x", TokenType::kControl},
                                                        {"<tool>", TokenType::kUserDefined},
                                                        {"<tool>s", TokenType::kControl},
                                                        {"<hole>", TokenType::kUnused},
                                                        {"<unk>", TokenType::kUnknown},
                                                    }}), {});
  }

  void ExpectMatch(absl::string_view text, size_t from, bool control, size_t offset, size_t length,
                   TokenId token) {
    const SpecialTokens::Match match = tokens_.Find(text, from, control);
    EXPECT_EQ(match.offset, offset) << text;
    EXPECT_EQ(match.length, length) << text;
    EXPECT_EQ(match.token, token) << text;
  }

  SpecialTokens tokens_{MakeVocabulary()};
};

TEST_F(SpecialTokensTest, FirstNameIsFound) {
  ExpectMatch("ab<|im|><unk>", 0, true, 2, 6, kFirst);
  ExpectMatch("ab<|im|><unk>", 3, true, 8, 5, kFirst + 5);
}

TEST_F(SpecialTokensTest, LongestNameWins) { ExpectMatch("<|im|>xy", 0, true, 0, 7, kFirst + 1); }

TEST_F(SpecialTokensTest, NameThatBreaksOffIsText) {
  ExpectMatch("<|i<|im|>", 0, true, 3, 6, kFirst);
  ExpectMatch("<|im|", 0, true, 5, 0, -1);
}

TEST_F(SpecialTokensTest, WithoutControlOnlyUserDefinedTokensAreFound) {
  ExpectMatch("<|im|><tool>s", 0, false, 6, 6, kFirst + 2);
  ExpectMatch("<|im|><unk>", 0, false, 11, 0, -1);
}

TEST_F(SpecialTokensTest, UnusedAndNormalTokensAreNever) {
  ExpectMatch("a<hole>", 0, true, 7, 0, -1);
}

TEST_F(SpecialTokensTest, EmptyTextHasNone) { ExpectMatch("", 0, true, 0, 0, -1); }

}  // namespace
}  // namespace odmoe
