#include "services/inference/tokenizer/pair_merger.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/inference/tokenizer/byte_characters.h"

namespace odmoe {
namespace {

// Bytes that occur in no UTF-8 text need no token.
constexpr bool OccursInUtf8(int byte) { return byte != 0xC0 && byte != 0xC1 && byte < 0xF5; }

constexpr uint64_t PairKey(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<PairMerger> PairMerger::Create(const Vocabulary& vocabulary,
                                              const std::vector<std::string>& merges) {
  PairMerger merger;
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    if (vocabulary.type(token) == TokenType::kNormal) {
      merger.by_piece_.try_emplace(std::string(vocabulary.Piece(token)), token);
    }
  }
  ODMOE_RETURN_IF_ERROR(merger.MapBytes(vocabulary));
  merger.joins_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    ODMOE_RETURN_IF_ERROR(merger.AddMerge(merges[rank], static_cast<uint32_t>(rank)));
  }
  return merger;
}

absl::Status PairMerger::MapBytes(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    const TokenId token = Find(std::string(1, static_cast<char>(byte)));
    byte_tokens_[byte] = token >= 0 ? token : vocabulary.roles().unknown;
    if (byte_tokens_[byte] < 0 && OccursInUtf8(byte)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "tokenizer.ggml.tokens: no token for byte 0x%02X (%s), and no unknown token", byte,
          CharacterOfByte(static_cast<uint8_t>(byte))));
    }
  }
  return absl::OkStatus();
}

absl::Status PairMerger::AddMerge(absl::string_view merge, uint32_t rank) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer.ggml.merges[%d], '%s': %s", rank, merge, why));
  };
  const size_t space = merge.find(' ', 1);
  if (space == absl::string_view::npos) return bad("expected two parts with a space between");
  const auto left = BytesOfCharacters(merge.substr(0, space));
  const auto right = BytesOfCharacters(merge.substr(space + 1));
  if (!left || !right || right->empty()) return bad("not in byte characters");
  const TokenId left_token = Find(*left);
  const TokenId right_token = Find(*right);
  const TokenId token = Find(*left + *right);
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

  const int32_t size = static_cast<int32_t>(piece.size());
  symbols.resize(piece.size());
  for (int32_t i = 0; i < size; ++i) {
    symbols[i] = {byte_tokens_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < size ? i + 1 : -1};
  }
  heap.clear();
  for (int32_t i = 0; i < size; ++i) push(i);

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
    symbols[right].token = -1;
    push(symbols[left].previous);
    push(left);
  }
  for (int32_t i = size > 0 ? 0 : -1; i >= 0; i = symbols[i].next) {
    tokens.push_back(symbols[i].token);
  }
}

}  // namespace odmoe
