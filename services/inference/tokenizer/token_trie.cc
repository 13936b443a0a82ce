#include "services/inference/tokenizer/token_trie.h"

namespace odmoe {

void TokenTrie::Add(absl::string_view text, TokenId token) {
  if (text.empty()) return;
  Node node = kRoot;
  for (char byte : text) {
    const auto [edge, added] =
        edges_.try_emplace(EdgeKey(node, byte), static_cast<Node>(tokens_.size()));
    if (added) tokens_.push_back(-1);
    node = edge->second;
  }
  if (tokens_[node] < 0) tokens_[node] = token;
}

}  // namespace odmoe
