// Finds the tokens that are recognized by name in a text before it is split.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// Immutable, thread-safe.
class SpecialTokens {
 public:
  // A place in a text where a token's name stands.
  struct Match {
    size_t offset;
    size_t length;  // 0: there is none
    TokenId token;
  };

  explicit SpecialTokens(const Vocabulary& vocabulary);

  // The first match at or after `from`; of those that begin there the longest. User-defined tokens
  // always, control and unknown tokens only with `control`. Time O(text * longest name).
  Match Find(absl::string_view text, size_t from, bool control) const;

 private:
  struct Node {
    TokenId token = -1;  // whose name ends here
    bool user_defined = false;
  };

  void Add(absl::string_view name, TokenId token, bool user_defined);
  Match LongestAt(absl::string_view text, size_t offset, bool control) const;

  // A trie: node 0 is the root; edges by node and byte.
  std::vector<Node> nodes_;
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  bool begins_[256] = {};  // bytes that some name begins with
};

}  // namespace odmoe
