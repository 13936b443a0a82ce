// Turns the bytes of generated tokens into text that can be shown as it comes.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// Gives out whole UTF-8 characters only, and never a byte of a stop string: what could still become
// one is held back. The text ends at the first point where some stop string is complete; of several
// complete there the longest counts; neither it nor anything after it is given out. Bytes that are
// not UTF-8 become U+FFFD, one for each maximal beginning of a character (as browsers do). What is
// given out in all does not depend on how the bytes were cut into tokens.
//
//   TextStream stream(request.stop);
//   event.text = stream.Append(tokenizer.IsControl(token) ? "" : tokenizer.Piece(token));
//   if (stream.stopped()) ...          // a stop string: FinishReason::kStop
//   summary.tail = stream.Finish();
//
// Owned by one thread at a time.
class TextStream {
 public:
  // A stop string that is empty or not UTF-8 never matches.
  explicit TextStream(std::vector<std::string> stops);

  // Takes a token's bytes; returns what may be shown now. Empty once stopped.
  std::string Append(absl::string_view bytes);

  // Returns what was held back; an incomplete character at the end is U+FFFD. Empty where a stop
  // string was met.
  std::string Finish();

  bool stopped() const { return stopped_; }

 private:
  void AddCharacter(absl::string_view character);
  std::string Release(size_t keep);
  size_t LongestStopPrefix() const;

  std::vector<std::string> stops_;
  std::string incomplete_;  // the beginning of a character, 0 to 3 bytes
  std::string held_;        // text not given out yet
  bool stopped_ = false;
};

}  // namespace odmoe
