// Finds the tokens that are recognized by name in a text before it is split.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"
#include "services/inference/tokenizer/token_trie.h"
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
  Match LongestAt(absl::string_view text, size_t offset, bool control) const;

  TokenTrie user_defined_;
  TokenTrie control_;  // and unknown tokens
  bool begins_[256] = {};  // bytes that some name begins with
};

}  // namespace odmoe
