#include "services/core/base/utf8.h"

#include <cstdint>
#include <string>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

std::string EncodeAnyway(uint32_t code) {
  std::string out;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  const int extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const int lead[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(lead[extra] | (code >> (6 * extra)));
  for (int i = extra - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  return out;
}

TEST(Utf8Test, EveryScalarValueAndNoSurrogateIsACharacter) {
  for (uint32_t code = 0; code <= 0x10FFFF; ++code) {
    const std::string bytes = EncodeAnyway(code);
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    const Utf8Prefix prefix = ReadUtf8Prefix(bytes);
    ASSERT_EQ(prefix.kind == Utf8Prefix::Kind::kCharacter, !surrogate) << std::hex << code;
    ASSERT_TRUE(surrogate || prefix.length == bytes.size()) << std::hex << code;
  }
}

TEST(Utf8Test, BeginningsOfCharactersAreIncomplete) {
  for (const std::string character : {"é", "日", "🦙", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    for (size_t cut = 1; cut < character.size(); ++cut) {
      const Utf8Prefix prefix = ReadUtf8Prefix(character.substr(0, cut));
      EXPECT_EQ(prefix.kind, Utf8Prefix::Kind::kIncomplete);
      EXPECT_EQ(prefix.length, cut);
    }
  }
}

TEST(Utf8Test, InvalidPrefixIsAMaximalSubpart) {
  struct Case {
    std::string bytes;
    size_t length;
  };
  const Case cases[] = {
      {"\x80", 1},             // a lone continuation
      {"\xC0\xAF", 1},         // overlong
      {"\xE0\x80\x80", 1},     // overlong: the second byte already cannot follow
      {"\xED\xA0\x80", 1},     // a surrogate
      {"\xF5\x80\x80\x80", 1},
      {"\xF4\x90\x80\x80", 1}, // past U+10FFFF
      {"\xE6\x97Z", 2},        // two good bytes, then none
      {"\xF0\x9F\xA6Z", 3},
  };
  for (const Case& test : cases) {
    const Utf8Prefix prefix = ReadUtf8Prefix(test.bytes);
    EXPECT_EQ(prefix.kind, Utf8Prefix::Kind::kInvalid);
    EXPECT_EQ(prefix.length, test.length);
  }
}

TEST(Utf8Test, FirstInvalidIsFoundAtEveryOffset) {
  for (size_t before = 0; before < 20; ++before) {
    const std::string text = std::string(before, 'x') + "\xFF" + std::string(20, 'y');
    EXPECT_EQ(FirstInvalidUtf8(text), before);
  }
  EXPECT_EQ(FirstInvalidUtf8("plain, and déjà vu 日本"), std::string("plain, and déjà vu 日本").size());
  EXPECT_EQ(FirstInvalidUtf8(""), 0u);
  EXPECT_EQ(FirstInvalidUtf8("abc\xE6\x97"), 3u);
}

TEST(Utf8Test, InvalidBytesAreReplacedAndTheRestIsKept) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "é\xE6\x97z\xED\xA0\x80"),
            "a\uFFFDé\uFFFDz\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("日本\xE6"), "日本\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8(""), "");
}

}  // namespace
}  // namespace odmoe
