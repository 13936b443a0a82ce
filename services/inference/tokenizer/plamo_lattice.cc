#include "services/inference/tokenizer/plamo_lattice.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/core/base/utf8.h"
#include "services/inference/tokenizer/token_trie.h"

namespace odmoe {
namespace {

constexpr int64_t kUnknownCost = 10'000'000;
// A token of such a score or less is never chosen.
constexpr int64_t kForbiddenCost = 20'000'000;

// The best way to write what begins here.
struct Beginning {
  int64_t cost = 0;
  TokenId token = -1;  // -1: bytes
  int32_t length = 0;  // of the first token; 0: inside a character
};

class PlamoLattice final : public FragmentEncoder {
 public:
  explicit PlamoLattice(const Vocabulary& vocabulary) {
    costs_.resize(static_cast<size_t>(vocabulary.size()), kForbiddenCost);
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
      const float score = vocabulary.score(token);
      if (vocabulary.type(token) == TokenType::kByte || !std::isfinite(score)) continue;
      const double cost = -std::round(score * 1e4f);
      if (std::abs(cost) >= static_cast<double>(kForbiddenCost)) continue;
      costs_[token] = static_cast<int64_t>(cost);
      trie_.Add(vocabulary.Text(token), token);
    }
    for (int byte = 0; byte < 256; ++byte) {
      byte_tokens_[byte] = vocabulary.ByteToken(static_cast<uint8_t>(byte));
    }
  }

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";
    const absl::string_view text = absl::StripPrefix(fragment, kByteOrderMark);
    const std::vector<Beginning> beginnings = FindBeginnings(text);
    for (size_t at = 0; at < text.size(); at += beginnings[at].length) {
      if (beginnings[at].token >= 0) {
        tokens.push_back(beginnings[at].token);
        continue;
      }
      for (char byte : text.substr(at, beginnings[at].length)) {
        tokens.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
      }
    }
    return absl::OkStatus();
  }

 private:
  // By the offset at which they begin.
  std::vector<Beginning> FindBeginnings(absl::string_view text) const {
    std::vector<Beginning> beginnings(text.size() + 1);
    // Characters from the front: a token of a hostile vocabulary may have cut one, and what is left
    // of it is a character of its own then.
    for (size_t begin = 0; begin < text.size(); begin += beginnings[begin].length) {
      beginnings[begin].length = static_cast<int32_t>(ReadUtf8Prefix(text.substr(begin)).length);
    }
    for (size_t begin = text.size(); begin-- > 0;) {
      const int32_t character = beginnings[begin].length;
      if (character == 0) continue;
      Beginning best = {kUnknownCost + beginnings[begin + character].cost, -1, character};
      TokenTrie::Node node = TokenTrie::kRoot;
      for (size_t end = begin; end < text.size();) {
        node = trie_.Step(node, text[end++]);
        if (node == TokenTrie::kNone) break;
        const TokenId token = trie_.TokenAt(node);
        if (token < 0 || (end < text.size() && beginnings[end].length == 0)) continue;
        const int64_t cost = costs_[token] + beginnings[end].cost;
        if (cost <= best.cost) best = {cost, token, static_cast<int32_t>(end - begin)};
      }
      beginnings[begin] = best;
    }
    return beginnings;
  }

  std::vector<int64_t> costs_;
  TokenTrie trie_;
  TokenId byte_tokens_[256];
};

}  // namespace

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakePlamoLattice(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    if (vocabulary.ByteToken(static_cast<uint8_t>(byte)) < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.tokens: no token <0x%02X>", byte));
    }
  }
  return std::make_unique<PlamoLattice>(vocabulary);
}

}  // namespace odmoe
