// Byte-pair merging: the tokens of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// A piece begins as its bytes' tokens. Of all neighbours that some merge joins, those of the lowest
// rank, of these the leftmost, become one token, until none are left (Sennrich et al. 2016).
// Immutable, thread-safe.
class PairMerger {
 public:
  // What merging a piece of n bytes needs, at most 28 n bytes (36 while it grows); kept from piece
  // to piece. Owned by one thread at a time.
  class Scratch;

  // `merges` as tokenizer.ggml.merges has them: "left right" in byte characters, the first of rank
  // 0. INVALID_ARGUMENT: a merge that is none, or of tokens that the vocabulary lacks; a byte of
  // UTF-8 text that no token writes, and no unknown token to stand for it.
  static absl::StatusOr<PairMerger> Create(const Vocabulary& vocabulary,
                                           const std::vector<std::string>& merges);

  // Appends the tokens of `piece`, which has at most 2^31 - 1 bytes. Time O(n log n).
  void Merge(absl::string_view piece, Scratch& scratch, std::vector<TokenId>& tokens) const;

  // The token that is exactly `piece`; -1: none.
  TokenId Find(absl::string_view piece) const;

 private:
  struct Joined {
    uint32_t rank;
    TokenId token;
  };

  PairMerger() = default;
  absl::Status AddMerge(absl::string_view merge, uint32_t rank);
  absl::Status MapBytes(const Vocabulary& vocabulary);
  // Null: no merge joins the two.
  const Joined* Join(TokenId left, TokenId right) const;

  absl::flat_hash_map<std::string, TokenId> by_piece_;
  absl::flat_hash_map<uint64_t, Joined> joins_;  // by left << 32 | right
  std::array<TokenId, 256> byte_tokens_;
};

class PairMerger::Scratch {
 private:
  friend class PairMerger;
  // One token of the piece so far, in a doubly linked list; -1 ends it.
  struct Symbol {
    TokenId token;  // -1: merged into its left neighbour
    int32_t previous;
    int32_t next;
  };
  std::vector<Symbol> symbols_;
  // Candidate merges, rank << 32 | index of the left symbol, as a heap with the least on top.
  std::vector<uint64_t> heap_;
};

}  // namespace odmoe
