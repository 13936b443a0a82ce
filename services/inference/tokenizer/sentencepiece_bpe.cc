#include "services/inference/tokenizer/sentencepiece_bpe.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/inference/tokenizer/piece_cache.h"

namespace odmoe {
namespace {

// One token of a piece so far, in a doubly linked list; -1 ends it.
struct Symbol {
  int32_t begin;
  int32_t length;  // bytes; 0: merged into its left neighbour
  int32_t previous;
  int32_t next;
};

// `left` and its neighbour, together `length` bytes long; stale when either has grown since.
struct Candidate {
  float score;
  int32_t left;
  int32_t length;

  // Whether `b` goes before `a`.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  }
};

class SentencePieceBpe final : public FragmentEncoder {
 public:
  SentencePieceBpe(const Vocabulary& vocabulary, bool space_prefix) : space_prefix_(space_prefix) {
    unknown_ = vocabulary.roles().unknown;
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
      const TokenType type = vocabulary.type(token);
      if (type != TokenType::kNormal && type != TokenType::kUserDefined &&
          type != TokenType::kUnused) {
        continue;  // names, which text does not become by accident
      }
      const absl::string_view text = vocabulary.Text(token);
      pieces_.try_emplace(std::string(text), Piece{token, vocabulary.score(token)});
      longest_ = std::max(longest_, text.size());
      crosses_words_ = crosses_words_ || CrossesWords(text);
    }
    for (int byte = 0; byte < 256; ++byte) {
      byte_tokens_[byte] = vocabulary.ByteToken(static_cast<uint8_t>(byte));
    }
  }

  // Every byte has a token, or the unknown one stands for it.
  bool CanWriteAll() const {
    return unknown_ >= 0 || std::find(std::begin(byte_tokens_), std::end(byte_tokens_), -1) ==
                                std::end(byte_tokens_);
  }

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    const std::string text =
        absl::StrReplaceAll(absl::StrCat(space_prefix_ ? " " : "", fragment), {{" ", kSpaceMark}});
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    PieceCache cache;
    absl::string_view rest = text;
    while (!rest.empty()) {
      const absl::string_view word =
          rest.substr(0, crosses_words_ ? rest.size() : WordLength(rest));
      rest.remove_prefix(word.size());
      cache.Append(word, tokens, [&](absl::string_view met, std::vector<TokenId>& appended) {
        Merge(met, symbols, heap);
        for (int32_t i = 0; i >= 0; i = symbols[i].next) {
          AppendSymbol(met.substr(symbols[i].begin, symbols[i].length), appended);
        }
      });
    }
    return absl::OkStatus();
  }

 private:
  struct Piece {
    TokenId token;
    float score;
  };

  // A space mark after something else: where words are joined.
  static bool CrossesWords(absl::string_view text) { return WordLength(text) < text.size(); }

  // The marks at the beginning and what follows up to the next mark. Where no token reaches over
  // that border, merging each part alone comes to the same.
  static size_t WordLength(absl::string_view text) {
    size_t begin = 0;
    while (absl::StartsWith(text.substr(begin), kSpaceMark)) begin += kSpaceMark.size();
    return std::min(text.find(kSpaceMark, begin), text.size());
  }

  void Push(absl::string_view text, int32_t left, const std::vector<Symbol>& symbols,
            std::vector<Candidate>& heap) const {
    if (left < 0 || symbols[left].next < 0) return;
    const int32_t length = symbols[left].length + symbols[symbols[left].next].length;
    if (static_cast<size_t>(length) > longest_) return;
    const auto found = pieces_.find(text.substr(symbols[left].begin, length));
    if (found == pieces_.end()) return;
    heap.push_back({found->second.score, left, length});
    std::push_heap(heap.begin(), heap.end());
  }

  void Merge(absl::string_view text, std::vector<Symbol>& symbols,
             std::vector<Candidate>& heap) const {
    symbols.clear();
    const int32_t size = static_cast<int32_t>(text.size());
    for (int32_t at = 0; at < size; at += symbols.back().length) {
      const int32_t index = static_cast<int32_t>(symbols.size());
      const size_t length = ReadUtf8Prefix(text.substr(at)).length;
      symbols.push_back({at, static_cast<int32_t>(length), index - 1, index + 1});
    }
    symbols.back().next = -1;
    heap.clear();
    for (int32_t i = 0; i < static_cast<int32_t>(symbols.size()); ++i) Push(text, i, symbols, heap);
    while (!heap.empty()) {
      const Candidate best = heap.front();
      std::pop_heap(heap.begin(), heap.end());
      heap.pop_back();
      Symbol& left = symbols[best.left];
      if (left.length == 0 || left.next < 0) continue;
      Symbol& right = symbols[left.next];
      if (left.length + right.length != best.length) continue;
      left.length = best.length;
      left.next = right.next;
      right.length = 0;
      if (left.next >= 0) symbols[left.next].previous = best.left;
      Push(text, left.previous, symbols, heap);
      Push(text, best.left, symbols, heap);
    }
  }

  void AppendSymbol(absl::string_view text, std::vector<TokenId>& tokens) const {
    const auto found = pieces_.find(text);
    if (found != pieces_.end()) {
      tokens.push_back(found->second.token);
      return;
    }
    for (char byte : text) {
      const TokenId token = byte_tokens_[static_cast<uint8_t>(byte)];
      tokens.push_back(token >= 0 ? token : unknown_);
      if (token < 0) break;  // one for the character
    }
  }

  const bool space_prefix_;
  bool crosses_words_ = false;  // some token reaches over the border between words
  size_t longest_ = 0;          // bytes of the longest token
  absl::flat_hash_map<std::string, Piece> pieces_;
  TokenId byte_tokens_[256];
  TokenId unknown_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeSentencePieceBpe(
    const GgufMetadata& metadata, const Vocabulary& vocabulary) {
  ODMOE_ASSIGN_OR_RETURN(const bool space_prefix,
                         metadata.GetBoolOr("tokenizer.ggml.add_space_prefix", true));
  auto encoder = std::make_unique<SentencePieceBpe>(vocabulary, space_prefix);
  if (!encoder->CanWriteAll()) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.tokens: tokens <0x00> to <0xFF> are missing, and there is no unknown token "
        "to stand for a character that no token writes");
  }
  return encoder;
}

}  // namespace odmoe
