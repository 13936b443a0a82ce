#include "services/inference/tokenizer/longest_match.h"

#include <vector>

#include "services/inference/tokenizer/token_trie.h"

namespace odmoe {
namespace {

class LongestMatch final : public FragmentEncoder {
 public:
  explicit LongestMatch(const Vocabulary& vocabulary) : unknown_(vocabulary.roles().unknown) {
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
      trie_.Add(vocabulary.Piece(token), token);
    }
  }

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    for (size_t at = 0; at < fragment.size();) {
      TokenId longest = unknown_;
      size_t length = 1;
      TokenTrie::Node node = TokenTrie::kRoot;
      for (size_t end = at; end < fragment.size();) {
        node = trie_.Step(node, fragment[end++]);
        if (node == TokenTrie::kNone) break;
        if (trie_.TokenAt(node) >= 0) {
          longest = trie_.TokenAt(node);
          length = end - at;
        }
      }
      if (longest >= 0) tokens.push_back(longest);
      at += length;
    }
    return absl::OkStatus();
  }

 private:
  const TokenId unknown_;
  TokenTrie trie_;
};

}  // namespace

std::unique_ptr<FragmentEncoder> MakeLongestMatch(const Vocabulary& vocabulary) {
  return std::make_unique<LongestMatch>(vocabulary);
}

}  // namespace odmoe
