#include "converter/huggingface/tiktoken_ranks.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/byte_characters.h"

namespace odmoe {
namespace {

// The longest tokens there are, runs of spaces, have 128 bytes; taking a token apart takes time by
// the square of its length.
constexpr size_t kMaxTokenBytes = 512;
constexpr int64_t kMaxRank = (int64_t{1} << 24) - 1;
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

using RankOf = absl::flat_hash_map<absl::string_view, int64_t>;

// Where `token` falls in two by the merges of lower rank than its own; 0: it does not.
size_t SplitPoint(absl::string_view token, int64_t own_rank, const RankOf& ranks) {
  std::vector<size_t> begins(token.size() + 1);
  for (size_t i = 0; i < begins.size(); ++i) begins[i] = i;
  const auto rank_at = [&](size_t part) {  // of this part and the next together
    if (part + 2 >= begins.size()) return kNone;
    const auto found = ranks.find(token.substr(begins[part], begins[part + 2] - begins[part]));
    return found == ranks.end() || found->second >= own_rank ? kNone : found->second;
  };
  std::vector<int64_t> pairs(token.size());
  for (size_t part = 0; part < pairs.size(); ++part) pairs[part] = rank_at(part);
  while (pairs.size() > 2) {
    const auto least = std::min_element(pairs.begin(), pairs.end());
    if (*least == kNone) return 0;
    const size_t part = static_cast<size_t>(least - pairs.begin());
    begins.erase(begins.begin() + static_cast<int64_t>(part) + 1);
    pairs.erase(least);
    pairs[part] = rank_at(part);
    if (part > 0) pairs[part - 1] = rank_at(part - 1);
  }
  return begins[1];
}

std::string InByteCharacters(absl::string_view bytes) {
  std::string text;
  for (char byte : bytes) text += CharacterOfByte(static_cast<uint8_t>(byte));
  return text;
}

}  // namespace

absl::StatusOr<std::vector<TiktokenRank>> ParseTiktokenRanks(absl::string_view text,
                                                             const std::string& source) {
  std::vector<TiktokenRank> ranks;
  absl::flat_hash_set<std::string> tokens;
  absl::flat_hash_set<int64_t> taken;
  int64_t line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    if (line.empty() || line == "\r") continue;
    const auto bad = [&](absl::string_view what) {
      return absl::DataLossError(absl::StrFormat("%s: line %d: %s", source, line_number, what));
    };
    const std::vector<absl::string_view> parts =
        absl::StrSplit(line, absl::ByAnyChar(" \r"), absl::SkipEmpty());
    TiktokenRank entry;
    if (parts.size() != 2 || !absl::Base64Unescape(parts[0], &entry.bytes) ||
        entry.bytes.empty() || !absl::SimpleAtoi(parts[1], &entry.rank)) {
      return bad("expected a token in base 64, a space and its rank");
    }
    if (entry.rank < 0 || entry.rank > kMaxRank) {
      return bad(absl::StrFormat("rank %d, expected 0 to %d", entry.rank, kMaxRank));
    }
    if (entry.bytes.size() > kMaxTokenBytes) {
      return bad(absl::StrFormat("a token of %d bytes, expected at most %d", entry.bytes.size(),
                                 kMaxTokenBytes));
    }
    if (!taken.insert(entry.rank).second || !tokens.insert(entry.bytes).second) {
      return bad("a token or rank that an earlier line has");
    }
    ranks.push_back(std::move(entry));
  }
  if (ranks.empty()) return absl::DataLossError(absl::StrCat(source, ": no ranks in it"));
  return ranks;
}

std::vector<std::string> MergesOfRanks(const std::vector<TiktokenRank>& ranks) {
  RankOf by_bytes;
  by_bytes.reserve(ranks.size());
  for (const TiktokenRank& entry : ranks) by_bytes.emplace(entry.bytes, entry.rank);
  std::vector<std::string> merges;
  for (const TiktokenRank& entry : ranks) {
    if (entry.bytes.size() < 2) continue;
    const absl::string_view token = entry.bytes;
    const size_t split = SplitPoint(token, entry.rank, by_bytes);
    if (split == 0) continue;
    merges.push_back(absl::StrCat(InByteCharacters(token.substr(0, split)), " ",
                                  InByteCharacters(token.substr(split))));
  }
  return merges;
}

}  // namespace odmoe
