// tiktoken's file of ranks: a line a token, its bytes in base 64, a space, its rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

struct TiktokenRank {
  std::string bytes;
  int64_t rank = 0;  // also the token's id
};

// In the file's order. `source` names it in messages. DATA_LOSS: not such a file, with the line.
absl::StatusOr<std::vector<TiktokenRank>> ParseTiktokenRanks(absl::string_view text,
                                                             const std::string& source);

// The merges that a listing of ranks stands for, "left right" in byte characters, in its order: a
// token's two parts are what its bytes merge to by the merges of lower rank. A token that does not
// come down to two parts has no merge.
std::vector<std::string> MergesOfRanks(const std::vector<TiktokenRank>& ranks);

}  // namespace odmoe
