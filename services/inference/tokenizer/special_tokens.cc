#include "services/inference/tokenizer/special_tokens.h"

namespace odmoe {
namespace {

// The longest name in `trie` that `text` begins with: its length and token; 0, -1: none.
std::pair<size_t, TokenId> LongestPrefix(const TokenTrie& trie, absl::string_view text) {
  std::pair<size_t, TokenId> longest = {0, -1};
  TokenTrie::Node node = TokenTrie::kRoot;
  for (size_t at = 0; at < text.size(); ++at) {
    node = trie.Step(node, text[at]);
    if (node == TokenTrie::kNone) break;
    if (trie.TokenAt(node) >= 0) longest = {at + 1, trie.TokenAt(node)};
  }
  return longest;
}

}  // namespace

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) {
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    const TokenType type = vocabulary.type(token);
    const bool user_defined = type == TokenType::kUserDefined;
    if (!user_defined && type != TokenType::kControl && type != TokenType::kUnknown) continue;
    const absl::string_view name = vocabulary.Text(token);
    if (name.empty()) continue;
    begins_[static_cast<uint8_t>(name[0])] = true;
    (user_defined ? user_defined_ : control_).Add(name, token);
  }
}

SpecialTokens::Match SpecialTokens::LongestAt(absl::string_view text, size_t offset,
                                              bool control) const {
  auto longest = LongestPrefix(user_defined_, text.substr(offset));
  if (control) {
    const auto other = LongestPrefix(control_, text.substr(offset));
    // Of two tokens with one name the first counts.
    if (other.first > longest.first ||
        (other.first == longest.first && other.second < longest.second)) {
      longest = other;
    }
  }
  return {offset, longest.first, longest.second};
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
