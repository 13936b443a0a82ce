// Tokens by the bytes of their text, walked one byte at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Immutable once filled, then thread-safe.
class TokenTrie {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = UINT32_MAX;

  TokenTrie() : tokens_(1, -1) {}

  // Of two tokens with one text the first counts. An empty text is left out.
  void Add(absl::string_view text, TokenId token);

  // The node one byte further; kNone: no text goes on like this.
  Node Step(Node node, char byte) const {
    const auto edge = edges_.find(EdgeKey(node, byte));
    return edge == edges_.end() ? kNone : edge->second;
  }
  // The token whose text ends here; -1: none.
  TokenId TokenAt(Node node) const { return tokens_[node]; }

 private:
  static uint64_t EdgeKey(Node node, char byte) {
    return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
  }

  std::vector<TokenId> tokens_;  // by node
  absl::flat_hash_map<uint64_t, Node> edges_;
};

}  // namespace odmoe
