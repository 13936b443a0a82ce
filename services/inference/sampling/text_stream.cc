#include "services/inference/sampling/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "services/core/base/utf8.h"

namespace odmoe {

TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {
  stops_.erase(std::remove_if(stops_.begin(), stops_.end(),
                              [](const std::string& stop) {
                                return stop.empty() || FirstInvalidUtf8(stop) != stop.size();
                              }),
               stops_.end());
}

std::string TextStream::Append(absl::string_view bytes) {
  if (stopped_) return "";
  incomplete_.append(bytes.data(), bytes.size());
  absl::string_view rest = incomplete_;
  while (!rest.empty() && !stopped_) {
    const Utf8Prefix prefix = ReadUtf8Prefix(rest);
    if (prefix.kind == Utf8Prefix::Kind::kIncomplete) break;
    const bool valid = prefix.kind == Utf8Prefix::Kind::kCharacter;
    AddCharacter(valid ? rest.substr(0, prefix.length) : kReplacementCharacter);
    rest.remove_prefix(prefix.length);
  }
  incomplete_ = std::string(rest);
  return Release(stopped_ ? 0 : LongestStopPrefix());
}

std::string TextStream::Finish() {
  if (!stopped_ && !incomplete_.empty()) AddCharacter(kReplacementCharacter);
  incomplete_.clear();
  return Release(0);
}

void TextStream::AddCharacter(absl::string_view character) {
  held_.append(character.data(), character.size());
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    if (absl::EndsWith(held_, stop)) longest = std::max(longest, stop.size());
  }
  if (longest == 0) return;
  held_.resize(held_.size() - longest);
  stopped_ = true;
}

std::string TextStream::Release(size_t keep) {
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

size_t TextStream::LongestStopPrefix() const {
  size_t longest = 0;
  const absl::string_view held = held_;
  for (const std::string& stop : stops_) {
    // A whole stop string has been cut off already, so only proper beginnings are of interest.
    for (size_t length = std::min(stop.size() - 1, held.size()); length > longest; --length) {
      if (absl::EndsWith(held, absl::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

}  // namespace odmoe
