// The tokens of pieces already met in a text: words come back.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// Refers to the text the pieces are of. Owned by one thread at a time.
class PieceCache {
 public:
  // Appends what `encode(piece, tokens)` appends, which depends on the piece alone.
  template <typename EncodePiece>
  void Append(absl::string_view piece, std::vector<TokenId>& tokens, EncodePiece encode) {
    if (piece.size() > kMaxPieceBytes) return encode(piece, tokens);
    const auto found = by_piece_.find(piece);
    if (found != by_piece_.end()) {
      const auto [begin, count] = found->second;
      tokens.insert(tokens.end(), kept_.begin() + begin, kept_.begin() + begin + count);
      return;
    }
    const size_t before = tokens.size();
    encode(piece, tokens);
    if (by_piece_.size() == kMaxPieces) return;
    const Kept kept = {static_cast<uint32_t>(kept_.size()),
                       static_cast<uint32_t>(tokens.size() - before)};
    kept_.insert(kept_.end(), tokens.begin() + static_cast<int64_t>(before), tokens.end());
    by_piece_.emplace(piece, kept);
  }

 private:
  // Words that come back are short and few; what is not kept is encoded anew. At most 8 MiB.
  static constexpr size_t kMaxPieceBytes = 32;
  static constexpr size_t kMaxPieces = size_t{1} << 16;

  using Kept = std::pair<uint32_t, uint32_t>;  // where in kept_, and how many
  std::vector<TokenId> kept_;
  absl::flat_hash_map<absl::string_view, Kept> by_piece_;
};

}  // namespace odmoe
