#include "services/core/formats/byte_characters.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(ByteCharactersTest, EveryByteHasItsOwnCharacterAndComesBack) {
  std::set<std::string> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string character = CharacterOfByte(static_cast<uint8_t>(byte));
    characters.insert(character);
    EXPECT_EQ(BytesOfCharacters(character), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(characters.size(), 256u);
}

TEST(ByteCharactersTest, KnownCharacters) {
  EXPECT_EQ(CharacterOfByte('a'), "a");
  EXPECT_EQ(CharacterOfByte(' '), "Ġ");
  EXPECT_EQ(CharacterOfByte('\n'), "Ċ");
  EXPECT_EQ(CharacterOfByte(0x00), "Ā");
  EXPECT_EQ(CharacterOfByte(0x7F), "ġ");
  EXPECT_EQ(CharacterOfByte(0xAD), "\u0143");
  EXPECT_EQ(CharacterOfByte(0xFF), "ÿ");
}

TEST(ByteCharactersTest, OtherCharactersWriteNoBytes) {
  EXPECT_EQ(BytesOfCharacters("Ġthe"), " the");
  EXPECT_EQ(BytesOfCharacters(""), "");
  for (const char* other :
       {" ", "a b", "\n", "\u0144", "\u00ad", "日", "🦙", "\xC4", "\xC4z", "\xA1"}) {
    EXPECT_EQ(BytesOfCharacters(other), std::nullopt) << other;
  }
}

TEST(ByteCharactersTest, ByteTokensHaveTwoHexadecimalDigitsAndNothingElse) {
  EXPECT_EQ(ByteOfTokenText("<0x00>"), 0);
  EXPECT_EQ(ByteOfTokenText("<0xaF>"), 0xAF);
  EXPECT_EQ(ByteOfTokenText("<0xFF>"), 0xFF);
  for (const char* other : {"", "<0x>", "<0x1>", "<0x-1>", "<0x+1>", "<0x 1>", "<0x1 >", "<0x1G>",
                            "<0X0A>", "<0x0A", "<0x0A>>", "<0x100>", "x0x0A>", "0x0A"}) {
    EXPECT_EQ(ByteOfTokenText(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace odmoe
