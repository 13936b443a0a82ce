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
  for (const char* other : {" ", "a b", "\n", "\u0144", "\u00ad", "日", "🦙", "\xC4", "\xC4z", "\xA1"}) {
    EXPECT_EQ(BytesOfCharacters(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace odmoe
