// SentencePiece's precompiled character map: what stretches of text are replaced by before they are
// tokenized, compiled from rules such as Unicode's normal form KC.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Layout: u32 n; n bytes of a double array of u32 units, as the darts-clone library writes it; then
// the replacements, each ended by a NUL byte. All little-endian. Immutable, thread-safe.
class CharacterMap {
 public:
  CharacterMap() = default;  // replaces nothing

  // INVALID_ARGUMENT: not such a map; the message says at which byte.
  static absl::StatusOr<CharacterMap> Parse(absl::string_view bytes);

  // The longest stretch at the beginning of `text` that is replaced: its length and what by. Null:
  // none is.
  std::optional<std::pair<size_t, absl::string_view>> Replace(absl::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace odmoe
