#include "services/inference/tokenizer/character_map.h"

#include "absl/strings/str_format.h"

namespace odmoe {
namespace {

// A unit of the double array: where its children are, the byte that leads to it, whether a value
// hangs below it. A unit with the top bit set is a value.
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
uint32_t LabelOf(uint32_t unit) { return unit & ((1u << 31) | 0xff); }
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

absl::StatusOr<CharacterMap> CharacterMap::Parse(absl::string_view bytes) {
  CharacterMap map;
  if (bytes.empty()) return map;
  if (bytes.size() < sizeof(uint32_t)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.precompiled_charsmap has %d bytes, expected a length of 4", bytes.size()));
  }
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = sizeof value; i-- > 0;)
      value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
    return value;
  };
  const size_t array_bytes = word(0);
  if (array_bytes % sizeof(uint32_t) != 0 || array_bytes > bytes.size() - sizeof(uint32_t)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.precompiled_charsmap, byte 0: an array of %d bytes, expected a multiple of "
        "4 up to %d",
        array_bytes, bytes.size() - sizeof(uint32_t)));
  }
  const size_t end = sizeof(uint32_t) + array_bytes;
  for (size_t at = sizeof(uint32_t); at < end; at += sizeof(uint32_t)) {
    map.units_.push_back(word(at));
  }
  map.replacements_ = std::string(bytes.substr(end));
  if (!map.replacements_.empty() && map.replacements_.back() != '\0') {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.precompiled_charsmap, byte %d: the last replacement is not ended by a NUL",
        bytes.size()));
  }
  return map;
}

std::optional<std::pair<size_t, absl::string_view>> CharacterMap::Replace(
    absl::string_view text) const {
  if (units_.empty()) return std::nullopt;
  std::optional<std::pair<size_t, absl::string_view>> longest;
  size_t node = OffsetOf(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    // An index beyond the array can only come from a broken map: nothing goes on there.
    if (node >= units_.size() || LabelOf(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= OffsetOf(unit);
    if (!HasValue(unit)) continue;
    if (node >= units_.size() || ValueOf(units_[node]) >= replacements_.size()) break;
    longest.emplace(i + 1, absl::string_view(replacements_.c_str() + ValueOf(units_[node])));
  }
  return longest;
}

}  // namespace odmoe
