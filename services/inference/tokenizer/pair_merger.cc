#include "services/inference/tokenizer/pair_merger.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/core/formats/byte_characters.h"

namespace odmoe {
namespace {

constexpr uint64_t PairKey(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<PairMerger> PairMerger::Create(const Vocabulary& vocabulary,
                                              const std::vector<std::string>& merges,
                                              bool byte_characters) {
  PairMerger merger;
  merger.byte_characters_ = byte_characters;
  ByPiece control;
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    const TokenType type = vocabulary.type(token);
    const absl::string_view text = vocabulary.Text(token);
    const std::string piece = merger.Decode(text).value_or(std::string(text));
    if (type == TokenType::kNormal || type == TokenType::kUserDefined) {
      merger.by_piece_.try_emplace(piece, token);
    } else {
      control.try_emplace(piece, token);
    }
  }
  ODMOE_RETURN_IF_ERROR(merger.MapBytes(vocabulary));
  merger.joins_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    ODMOE_RETURN_IF_ERROR(merger.AddMerge(merges[rank], static_cast<uint32_t>(rank), control));
  }
  return merger;
}

absl::Status PairMerger::MapBytes(const Vocabulary& vocabulary) {
  unknown_ = vocabulary.roles().unknown;
  int found = 0;
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[byte] = byte_characters_ ? Find(std::string(1, static_cast<char>(byte)))
                                          : vocabulary.ByteToken(static_cast<uint8_t>(byte));
    found += byte_tokens_[byte] >= 0 ? 1 : 0;
  }
  if (byte_characters_ && found == 0) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.tokens: no token for any of the 256 bytes, expected byte characters "
        "such as 'a' and 'Ġ'");
  }
  return absl::OkStatus();
}

std::optional<std::string> PairMerger::Decode(absl::string_view text) const {
  return byte_characters_ ? BytesOfCharacters(text) : std::string(text);
}

absl::Status PairMerger::AddMerge(absl::string_view merge, uint32_t rank, const ByPiece& control) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer.ggml.merges[%d], '%s': %s", rank, merge, why));
  };
  // A model may list its special tokens' parts among the merges.
  const auto find = [&](const std::string& piece) {
    const TokenId token = Find(piece);
    const auto found = control.find(piece);
    return token >= 0 || found == control.end() ? token : found->second;
  };
  const size_t space = merge.find(' ', 1);
  if (space == absl::string_view::npos) return bad("expected two parts with a space between");
  const auto left = Decode(merge.substr(0, space));
  const auto right = Decode(merge.substr(space + 1));
  if (!left || !right || right->empty()) return bad("not in byte characters");
  const TokenId left_token = find(*left);
  const TokenId right_token = find(*right);
  const TokenId token = find(*left + *right);
  if (left_token < 0 || right_token < 0 || token < 0) return bad("a part or the whole is no token");
  // A pair listed twice keeps its first rank.
  joins_.try_emplace(PairKey(left_token, right_token), Joined{rank, token});
  return absl::OkStatus();
}

TokenId PairMerger::Find(absl::string_view piece) const {
  const auto found = by_piece_.find(piece);
  return found == by_piece_.end() ? -1 : found->second;
}

const PairMerger::Joined* PairMerger::Join(TokenId left, TokenId right) const {
  const auto found = joins_.find(PairKey(left, right));
  return found == joins_.end() ? nullptr : &found->second;
}

void PairMerger::Begin(absl::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  const int32_t size = static_cast<int32_t>(piece.size());
  for (int32_t at = 0; at < size;) {
    const int32_t length =
        byte_characters_ ? 1 : static_cast<int32_t>(ReadUtf8Prefix(piece.substr(at)).length);
    const TokenId token = byte_characters_ ? byte_tokens_[static_cast<uint8_t>(piece[at])]
                                           : Find(piece.substr(at, length));
    const int32_t index = static_cast<int32_t>(symbols.size());
    symbols.push_back({token < 0 ? Scratch::kUnwritten : token, at, index - 1, index + 1});
    at += length;
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void PairMerger::AppendBytes(absl::string_view bytes, std::vector<TokenId>& tokens) const {
  if (!byte_characters_) {
    for (char byte : bytes) {
      const TokenId token = byte_tokens_[static_cast<uint8_t>(byte)];
      if (token < 0) break;
      tokens.push_back(token);
    }
    if (byte_tokens_[static_cast<uint8_t>(bytes[0])] >= 0) return;
  }
  if (unknown_ >= 0) tokens.push_back(unknown_);
}

void PairMerger::Merge(absl::string_view piece, Scratch& scratch,
                       std::vector<TokenId>& tokens) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const auto push = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const Joined* joined = Join(symbols[left].token, symbols[symbols[left].next].token);
    if (joined == nullptr) return;
    heap.push_back(uint64_t{joined->rank} << 32 | static_cast<uint32_t>(left));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };

  Begin(piece, scratch);
  heap.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(symbols.size()); ++i) push(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t rank = static_cast<uint32_t>(heap.back() >> 32);
    const int32_t left = static_cast<int32_t>(heap.back() & UINT32_MAX);
    heap.pop_back();
    // A candidate is stale when either neighbour has changed since; then the pair has another rank,
    // or there is no pair.
    if (symbols[left].token < 0 || symbols[left].next < 0) continue;
    const int32_t right = symbols[left].next;
    const Joined* joined = Join(symbols[left].token, symbols[right].token);
    if (joined == nullptr || joined->rank != rank) continue;
    symbols[left].token = joined->token;
    symbols[left].next = symbols[right].next;
    if (symbols[right].next >= 0) symbols[symbols[right].next].previous = left;
    symbols[right].token = Scratch::kMerged;
    push(symbols[left].previous);
    push(left);
  }
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    if (symbols[i].token != Scratch::kUnwritten) {
      tokens.push_back(symbols[i].token);
      continue;
    }
    const size_t end = symbols[i].next < 0 ? piece.size() : symbols[symbols[i].next].begin;
    AppendBytes(piece.substr(symbols[i].begin, end - symbols[i].begin), tokens);
  }
}

}  // namespace odmoe
