#include "services/inference/tokenizer/regex_splitter.h"

#include <unicode/unistr.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/formats/pre_tokenizers.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Split(const std::vector<std::string>& patterns, const std::string& text) {
  auto splitter = RegexSplitter::Create(patterns);
  EXPECT_TRUE(splitter.ok()) << splitter.status();
  std::vector<std::string> pieces;
  const absl::Status status = (*splitter)->Split(
      text, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_TRUE(status.ok()) << status;
  return pieces;
}

std::vector<std::string> SplitBy(absl::string_view name, const std::string& text) {
  return Split(FindPreTokenizer(name)->regexes, text);
}

TEST(RegexSplitterTest, MatchesAndWhatLiesBetweenAreKept) {
  EXPECT_THAT(Split({"[0-9]+"}, "a12b3"), ElementsAre("a", "12", "b", "3"));
  EXPECT_THAT(Split({"[0-9]+"}, "abc"), ElementsAre("abc"));
  EXPECT_THAT(Split({"[0-9]+"}, ""), ElementsAre());
  EXPECT_THAT(Split({}, "abc"), ElementsAre("abc"));
}

TEST(RegexSplitterTest, LaterPatternsSeeOnlyThePieces) {
  EXPECT_THAT(Split({"-", "^b|c$"}, "a-bc-c"), ElementsAre("a", "-", "b", "c", "-", "c"));
}

TEST(RegexSplitterTest, EmptyMatchesCutNothing) {
  EXPECT_THAT(Split({"x*"}, "aéxxb"), ElementsAre("aé", "xx", "b"));
}

TEST(RegexSplitterTest, UnicodePropertiesAreUsed) {
  EXPECT_THAT(SplitBy("gpt-2", "Führer's 日本 ٣!"), ElementsAre("Führer", "'s", " 日本", " ٣", "!"));
}

TEST(RegexSplitterTest, SpacesBeforeAWordLeaveItOne) {
  EXPECT_THAT(SplitBy("gpt-2", "a   b  "), ElementsAre("a", "  ", " b", "  "));
}

TEST(RegexSplitterTest, DigitsAreCutAsThePreTokenizerSays) {
  EXPECT_THAT(SplitBy("qwen2", "1234"), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(SplitBy("llama-bpe", "1234"), ElementsAre("123", "4"));
  EXPECT_THAT(SplitBy("gpt-2", "1234"), ElementsAre("1234"));
}

TEST(RegexSplitterTest, KimiCutsHanFromOtherLetters) {
  EXPECT_THAT(SplitBy("kimi-k2", "日本カナHelloWORLD"),
              ElementsAre("日本", "カナ" "Hello", "WORLD"));
}

// PCRE2 has no "&&": the pattern used must cut as the one written, with the intersection spelled as
// a look-ahead, over every character next to many others.
TEST(RegexSplitterTest, KimiPatternCutsAsItsIntersectionsSay) {
  const PreTokenizer* kimi = FindPreTokenizer("kimi-k2");
  ASSERT_EQ(kimi->written.size(), 1u);
  std::string literal = absl::StrReplaceAll(
      kimi->written[0][0], {{R"([\p{Lu})", R"((?:(?!\p{Han})[\p{Lu})"},
                         {R"([\p{Ll}\p{Lm})", R"((?:(?!\p{Han})[\p{Ll}\p{Lm})"},
                         {R"(&&[^\p{Han}]])", "])"}});
  literal = absl::StrReplaceAll(literal, {{R"(\p{Han})", R"(\p{sc:Han})"},
                                          {R"(\s)", R"(\p{White_Space})"},
                                          {R"(\S)", R"(\P{White_Space})"}});
  std::vector<std::string> characters;
  for (UChar32 code = 0; code <= 0x10FFFF; ++code) {
    if (U_IS_SURROGATE(code)) continue;
    icu::UnicodeString(code).toUTF8String(characters.emplace_back());
  }
  std::shuffle(characters.begin(), characters.end(), std::mt19937(1));
  // Letters with case are rare among all characters; give the alternatives something to do.
  std::string text;
  for (const std::string& character : characters) text += character + "Ab";
  EXPECT_EQ(Split(kimi->regexes, text), Split({literal}, text));
}

TEST(RegexSplitterTest, BadPatternIsRefusedWithItsOffset) {
  const auto bad = RegexSplitter::Create({"a", "b(c"});
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("byte 3"));
}

TEST(RegexSplitterTest, RunawayMatchEndsAtTheStepLimit) {
  auto splitter = RegexSplitter::Create({"(?:a|a|b)+(?:a|b|a)+$"});
  ASSERT_TRUE(splitter.ok());
  const std::string text = std::string(40, 'a') + "!";
  EXPECT_EQ((*splitter)->Split(text, [](absl::string_view) {}).code(),
            absl::StatusCode::kResourceExhausted);
}

class EveryPreTokenizerTest : public testing::TestWithParam<std::string> {};

// A quadratic split of these would take days.
TEST_P(EveryPreTokenizerTest, SplitsLongRunsInLinearTime) {
  auto splitter = RegexSplitter::Create(FindPreTokenizer(GetParam())->regexes);
  ASSERT_TRUE(splitter.ok()) << splitter.status();
  constexpr size_t kCharacters = size_t{1} << 15;
  const std::string endings[] = {"", "1", "x", "!", "\n", "日", "\u0301"};
  for (const std::string unit : {" ", "a", "A", "日", "'", "\n", "\t", "1", "!", "aB", "\u00a0",
                                 "\u02b0", "\u0301", "\r\n", " \n", "/", "٣", "カ"}) {
    std::string run;
    for (size_t i = 0; i < kCharacters; ++i) run += unit;
    for (const std::string& ending : endings) {
      size_t bytes = 0;
      const absl::Status status = (*splitter)->Split(
          run + ending, [&](absl::string_view piece) { bytes += piece.size(); });
      ASSERT_TRUE(status.ok()) << status << " for " << unit << " before " << ending;
      ASSERT_EQ(bytes, run.size() + ending.size());
    }
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const PreTokenizer& pre : PreTokenizers()) names.emplace_back(pre.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, EveryPreTokenizerTest, testing::ValuesIn(Names()));

}  // namespace
}  // namespace odmoe
