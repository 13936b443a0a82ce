// Cuts text into the pieces that byte pairs are merged within.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Regular expressions applied one after the other: each cuts every piece so far into its matches
// and what lies between them, seeing nothing beyond the piece. Immutable, thread-safe.
class RegexSplitter {
 public:
  using OnPiece = absl::FunctionRef<void(absl::string_view piece)>;

  // PCRE2 patterns, compiled for UTF-8 with Unicode properties. INVALID_ARGUMENT: not a pattern;
  // the message says where.
  static absl::StatusOr<std::unique_ptr<RegexSplitter>> Create(
      const std::vector<std::string>& patterns);
  ~RegexSplitter();

  // Calls on_piece with the pieces in order; joined they are `text`, none is empty. `text` is
  // UTF-8. RESOURCE_EXHAUSTED: a match took more than a fixed number of steps a byte.
  absl::Status Split(absl::string_view text, OnPiece on_piece) const;

  // Calls on_match with the matches alone, of the one expression there is.
  absl::Status ForEachMatch(absl::string_view text, OnPiece on_match) const;

 private:
  class Pattern;
  class Pass;
  RegexSplitter();
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace odmoe
