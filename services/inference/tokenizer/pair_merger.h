// Byte-pair merging: the tokens of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/inference/tokenizer/vocabulary.h"

namespace odmoe {

// A piece begins as its bytes' tokens, or as its characters'. Of all neighbours that some merge
// joins, those of the lowest rank, of these the leftmost, become one token, until none are left
// (Sennrich et al. 2016). Immutable, thread-safe.
class PairMerger {
 public:
  // What merging a piece of n bytes needs, at most 32 n bytes (40 while it grows); kept from piece
  // to piece. Owned by one thread at a time.
  class Scratch;

  // `merges` as tokenizer.ggml.merges has them: "left right", the first of rank 0. With
  // `byte_characters` they and the tokens are written in byte characters; otherwise in UTF-8, and a
  // character that no token writes is the tokens "<0x0A>" of its bytes. A byte that no token writes
  // is the unknown token, where there is one, else left out.
  // INVALID_ARGUMENT: a merge that is none, or of tokens that the vocabulary lacks; no token for
  // any byte at all.
  static absl::StatusOr<PairMerger> Create(const Vocabulary& vocabulary,
                                           const std::vector<std::string>& merges,
                                           bool byte_characters = true);

  // Appends the tokens of `piece`, which has at most 2^31 - 1 bytes. Time O(n log n).
  void Merge(absl::string_view piece, Scratch& scratch, std::vector<TokenId>& tokens) const;

  // The token that is exactly `piece`; -1: none.
  TokenId Find(absl::string_view piece) const;

 private:
  struct Joined {
    uint32_t rank;
    TokenId token;
  };

  using ByPiece = absl::flat_hash_map<std::string, TokenId>;

  PairMerger() = default;
  absl::Status AddMerge(absl::string_view merge, uint32_t rank, const ByPiece& control);
  absl::Status MapBytes(const Vocabulary& vocabulary);
  // What `text`, as the file writes it, stands for; null: it is not in byte characters.
  std::optional<std::string> Decode(absl::string_view text) const;
  // Null: no merge joins the two.
  const Joined* Join(TokenId left, TokenId right) const;
  void Begin(absl::string_view piece, Scratch& scratch) const;
  void AppendBytes(absl::string_view bytes, std::vector<TokenId>& tokens) const;

  bool byte_characters_ = true;
  ByPiece by_piece_;
  absl::flat_hash_map<uint64_t, Joined> joins_;  // by left << 32 | right
  std::array<TokenId, 256> byte_tokens_;  // -1: none
  TokenId unknown_ = -1;
};

class PairMerger::Scratch {
 private:
  friend class PairMerger;
  static constexpr TokenId kMerged = -1;
  static constexpr TokenId kUnwritten = -2;
  // One token of the piece so far, in a doubly linked list; -1 ends it.
  struct Symbol {
    TokenId token;  // kMerged: into its left neighbour; kUnwritten: no token writes it
    int32_t begin;  // offset in the piece
    int32_t previous;
    int32_t next;
  };
  std::vector<Symbol> symbols_;
  // Candidate merges, rank << 32 | index of the left symbol, as a heap with the least on top.
  std::vector<uint64_t> heap_;
};

}  // namespace odmoe
