#include "services/core/base/utf8.h"

#include <cstdint>
#include <cstring>

namespace odmoe {
namespace {

struct LeadByte {
  size_t length;             // of the character; 0: no character begins so
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xBF;
};

LeadByte ClassifyLead(uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xC2) return {0};  // a continuation, or an overlong form
  if (lead < 0xE0) return {2};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (lead < 0xF0) return {3};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4};
  if (lead == 0xF4) return {4, 0x80, 0x8F};  // nothing past U+10FFFF
  return {0};
}

}  // namespace

Utf8Prefix ReadUtf8Prefix(absl::string_view text) {
  const LeadByte lead = ClassifyLead(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {Utf8Prefix::Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Prefix::Kind::kIncomplete, i};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {Utf8Prefix::Kind::kInvalid, i};
  }
  return {Utf8Prefix::Kind::kCharacter, lead.length};
}

size_t FirstInvalidUtf8(absl::string_view text) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  size_t at = 0;
  while (at < text.size()) {
    // Most text is ASCII, and a request's 16 MiB are checked on the way in.
    uint64_t word;
    if (text.size() - at >= sizeof word) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & kHighBits) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const Utf8Prefix prefix = ReadUtf8Prefix(text.substr(at));
    if (prefix.kind != Utf8Prefix::Kind::kCharacter) return at;
    at += prefix.length;
  }
  return text.size();
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t valid = FirstInvalidUtf8(text);
    out.append(text.data(), valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out.append(kReplacementCharacter.data(), kReplacementCharacter.size());
    text.remove_prefix(ReadUtf8Prefix(text).length);
  }
  return out;
}

}  // namespace odmoe
