#include "services/inference/tokenizer/digit_groups.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <cstdint>

namespace odmoe {
namespace {

bool IsDigit(UChar32 character, DigitGroups groups) {
  if (groups == DigitGroups::kDecimalsToTheEnd)
    return u_charType(character) == U_DECIMAL_DIGIT_NUMBER;
  return (U_GET_GC_MASK(character) & U_GC_N_MASK) != 0;
}

// What regexes call a word character.
bool IsWord(UChar32 character) {
  constexpr uint32_t kWord = U_GC_L_MASK | U_GC_N_MASK | U_GC_M_MASK | U_GC_PC_MASK;
  return (U_GET_GC_MASK(character) & kWord) != 0;
}

// Appends the digits at `offsets`, the first byte of each and last the end, as groups.
void AppendGroups(absl::string_view text, const std::vector<size_t>& offsets,
                  std::vector<TextPart>& parts) {
  const size_t count = offsets.size() - 1;
  for (size_t first = 0, next = (count - 1) % 3 + 1; first < count; first = next, next += 3) {
    parts.push_back({text.substr(offsets[first], offsets[next] - offsets[first]), true});
  }
}

}  // namespace

std::vector<TextPart> CutDigitGroups(absl::string_view text, DigitGroups groups) {
  if (text.empty()) return {};
  if (groups == DigitGroups::kNone) return {{text, false}};
  std::vector<TextPart> parts;
  std::vector<size_t> offsets;
  const int32_t size = static_cast<int32_t>(text.size());
  int32_t between = 0;  // where what is no group begins
  for (int32_t at = 0; at < size;) {
    offsets.clear();
    UChar32 character = 0;
    int32_t next = at;
    U8_NEXT(text.data(), next, size, character);
    const int32_t begin = at;
    while (at < size && IsDigit(character, groups)) {
      offsets.push_back(static_cast<size_t>(at));
      at = next;
      if (at < size) U8_NEXT(text.data(), next, size, character);
    }
    if (offsets.empty()) {
      at = next;
      continue;
    }
    const bool open = at < size && IsWord(character);
    if (groups == DigitGroups::kDecimalsToTheEnd && open) continue;
    if (begin > between) parts.push_back({text.substr(between, begin - between), false});
    offsets.push_back(static_cast<size_t>(at));
    AppendGroups(text, offsets, parts);
    between = at;
  }
  if (between < size) parts.push_back({text.substr(between), false});
  return parts;
}

}  // namespace odmoe
