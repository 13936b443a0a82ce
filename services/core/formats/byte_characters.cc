#include "services/core/formats/byte_characters.h"

#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace odmoe {
namespace {

constexpr uint32_t kFirstStandIn = 0x100;
constexpr uint32_t kCharacterEnd = 0x144;

constexpr bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint16_t, 256> MakeCodePoints() {
  std::array<uint16_t, 256> code_points{};
  uint32_t stand_in = kFirstStandIn;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    code_points[byte] = static_cast<uint16_t>(IsPrintable(byte) ? byte : stand_in++);
  }
  return code_points;
}

constexpr std::array<uint16_t, 256> kCodePoints = MakeCodePoints();

// Code point -> byte; -1: none of the 256.
constexpr std::array<int16_t, kCharacterEnd> MakeBytes() {
  std::array<int16_t, kCharacterEnd> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  for (int16_t byte = 0; byte < 256; ++byte) bytes[kCodePoints[byte]] = byte;
  return bytes;
}

constexpr std::array<int16_t, kCharacterEnd> kBytes = MakeBytes();

}  // namespace

std::string CharacterOfByte(uint8_t byte) {
  const uint16_t code = kCodePoints[byte];
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

std::optional<std::string> BytesOfCharacters(absl::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t code = static_cast<uint8_t>(text[i]);
    if (code >= 0x80) {
      // All 256 characters lie below U+0800: two bytes at most.
      if (code < 0xC2 || code >= 0xE0 || i + 1 == text.size()) return std::nullopt;
      const uint32_t next = static_cast<uint8_t>(text[++i]);
      if ((next & 0xC0) != 0x80) return std::nullopt;
      code = (code & 0x1F) << 6 | (next & 0x3F);
    }
    if (code >= kCharacterEnd || kBytes[code] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[code]);
  }
  return bytes;
}

std::optional<uint8_t> ByteOfTokenText(absl::string_view text) {
  // Not SimpleHexAtoi alone, which takes signs and spaces too.
  uint32_t byte = 0;
  if (text.size() != 6 || !absl::StartsWith(text, "<0x") || text[5] != '>' ||
      !absl::ascii_isxdigit(static_cast<unsigned char>(text[3])) ||
      !absl::ascii_isxdigit(static_cast<unsigned char>(text[4])) ||
      !absl::SimpleHexAtoi(text.substr(3, 2), &byte)) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(byte);
}

}  // namespace odmoe
