#include "services/inference/tokenizer/special_tokens.h"

namespace odmoe {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) : nodes_(1) {
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    switch (vocabulary.type(token)) {
      case TokenType::kUserDefined:
        Add(vocabulary.Piece(token), token, true);
        break;
      case TokenType::kControl:
      case TokenType::kUnknown:
        Add(vocabulary.Piece(token), token, false);
        break;
      default:
        break;
    }
  }
}

void SpecialTokens::Add(absl::string_view name, TokenId token, bool user_defined) {
  if (name.empty()) return;
  begins_[static_cast<uint8_t>(name[0])] = true;
  uint32_t node = 0;
  for (char byte : name) {
    const auto [edge, added] =
        edges_.try_emplace(EdgeKey(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (added) nodes_.emplace_back();
    node = edge->second;
  }
  // Of two tokens with one name the first counts.
  if (nodes_[node].token < 0) nodes_[node] = {token, user_defined};
}

SpecialTokens::Match SpecialTokens::LongestAt(absl::string_view text, size_t offset,
                                              bool control) const {
  Match longest = {offset, 0, -1};
  uint32_t node = 0;
  for (size_t at = offset; at < text.size(); ++at) {
    const auto edge = edges_.find(EdgeKey(node, text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (nodes_[node].token >= 0 && (control || nodes_[node].user_defined)) {
      longest = {offset, at + 1 - offset, nodes_[node].token};
    }
  }
  return longest;
}

SpecialTokens::Match SpecialTokens::Find(absl::string_view text, size_t from, bool control) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<uint8_t>(text[at])]) continue;
    const Match match = LongestAt(text, at, control);
    if (match.length > 0) return match;
  }
  return {text.size(), 0, -1};
}

}  // namespace odmoe
