#define PCRE2_CODE_UNIT_WIDTH 8
#include "services/core/formats/pre_tokenizers.h"

#include <pcre2.h>

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace odmoe {
namespace {

using testing::ElementsAre;

// The matches of a pre-tokenizer's first regex, in order.
std::vector<std::string> Matches(absl::string_view name, const std::string& text) {
  const PreTokenizer* pre = FindPreTokenizer(name);
  const std::string& regex = pre->regexes[0];
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  EXPECT_NE(code, nullptr);
  pcre2_match_data* match = pcre2_match_data_create_from_pattern(code, nullptr);
  std::vector<std::string> pieces;
  for (size_t start = 0; pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                     start, 0, match, nullptr) > 0;) {
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match);
    pieces.push_back(text.substr(range[0], range[1] - range[0]));
    start = range[1];
  }
  pcre2_match_data_free(match);
  pcre2_code_free(code);
  return pieces;
}

TEST(PreTokenizersTest, HaveUniqueNamesAndRegexesThatCompile) {
  std::set<absl::string_view> names;
  for (const PreTokenizer& pre : PreTokenizers()) {
    EXPECT_TRUE(names.insert(pre.name).second) << pre.name;
    EXPECT_EQ(FindPreTokenizer(pre.name), &pre);
    EXPECT_FALSE(pre.regexes.empty());
    for (const std::string& regex : pre.regexes) {
      int error = 0;
      PCRE2_SIZE at = 0;
      pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                                       PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
      EXPECT_NE(code, nullptr) << pre.name << ": error " << error << " at " << at;
      pcre2_code_free(code);
    }
  }
}

TEST(PreTokenizersTest, AreRecognizedByAllTheirRules) {
  for (const PreTokenizer& pre : PreTokenizers()) {
    EXPECT_FALSE(pre.written.empty());
    for (const auto& written : pre.written) {
      EXPECT_EQ(RecognizePreTokenizer(written, pre.nfc, pre.ignore_merges),
                pre.byte_characters ? &pre : nullptr)
          << pre.name;
    }
  }
  const PreTokenizer* qwen2 = FindPreTokenizer("qwen2");
  EXPECT_NE(RecognizePreTokenizer(qwen2->written[0], !qwen2->nfc, false), qwen2);
  EXPECT_EQ(RecognizePreTokenizer({"[a-z]+"}, false, false), nullptr);
  EXPECT_EQ(RecognizePreTokenizer({}, false, false), nullptr);
  EXPECT_EQ(FindPreTokenizer("no such"), nullptr);
}

TEST(PreTokenizersTest, CountDigitsAsTheirModelsDo) {
  EXPECT_THAT(Matches("gpt-2", "I've 1234"), ElementsAre("I", "'ve", " 1234"));
  EXPECT_THAT(Matches("qwen2", "in 123"), ElementsAre("in", " ", "1", "2", "3"));
  EXPECT_THAT(Matches("llama-bpe", "in 12345"), ElementsAre("in", " ", "123", "45"));
}

TEST(PreTokenizersTest, KimiKeepsHanApartFromOtherLetters) {
  EXPECT_THAT(Matches("kimi-k2", "hello\u4f60\u597dWorld"),
              ElementsAre("hello", "\u4f60\u597d", "World"));
  EXPECT_THAT(Matches("kimi-k2", "HelloWorld don't 1234"),
              ElementsAre("Hello", "World", " don't", " ", "123", "4"));
}

}  // namespace
}  // namespace odmoe
