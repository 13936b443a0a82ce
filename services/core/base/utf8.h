// UTF-8 as Unicode's standard, chapter 3, table 3-7 defines it.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace odmoe {

// What `text` begins with.
struct Utf8Prefix {
  enum class Kind {
    kCharacter,   // a whole character of `length` bytes
    kIncomplete,  // all of the text, a character's beginning that more bytes could complete
    kInvalid,     // `length` bytes that begin no character: a maximal subpart
  };
  Kind kind;
  size_t length;  // 1 to 4
};

// `text` is not empty.
Utf8Prefix ReadUtf8Prefix(absl::string_view text);

// The offset of the first byte that belongs to no character; text.size() where there is none.
size_t FirstInvalidUtf8(absl::string_view text);

// U+FFFD, in UTF-8: what stands for bytes that are none.
inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// `text` with U+FFFD for each maximal beginning of a character that is not one.
std::string ReplaceInvalidUtf8(absl::string_view text);

}  // namespace odmoe
