// Numbers in groups of three, counted from the right.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "services/core/formats/pre_tokenizers.h"

namespace odmoe {

// A part of a text.
struct TextPart {
  absl::string_view text;
  bool is_group;  // digits that belong together; else whatever lies between such
};

// Cuts `text`, which is UTF-8, into groups and what lies between; joined they are the text, none is
// empty. With kNone it is one part. Time and memory O(n).
std::vector<TextPart> CutDigitGroups(absl::string_view text, DigitGroups groups);

}  // namespace odmoe
