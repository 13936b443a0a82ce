// The 256 characters in which byte-level vocabularies write bytes. A byte that is a printable
// Latin-1 character (0x21-0x7E, 0xA1-0xAC, 0xAE-0xFF) is written as that character; the 68 others,
// in order, as U+0100 to U+0143: a space is "Ġ", a newline "Ċ". From GPT-2's bytes_to_unicode.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace odmoe {

// The character for `byte`, in UTF-8.
std::string CharacterOfByte(uint8_t byte);

// The bytes that `text` writes. Null where it has a character that is none of the 256.
std::optional<std::string> BytesOfCharacters(absl::string_view text);

// The byte that a token of SentencePiece's vocabularies names: "<0x0A>", two hexadecimal digits and
// nothing else. Null: another text ("<0x-1>").
std::optional<uint8_t> ByteOfTokenText(absl::string_view text);

}  // namespace odmoe
