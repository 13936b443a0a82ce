// Text to tokens and back, as the model was trained, from the keys tokenizer.ggml.* of its file.
//
//   ODMOE_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Create(metadata));
//   ODMOE_ASSIGN_OR_RETURN(auto tokens, tokenizer->Encode("It was a", {.add_special = false}));
//
// Special tokens are cut out first; what lies between is encoded as tokenizer.ggml.model says
// (tokenizer_parts.h lists the families).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/formats/gguf.h"
#include "services/core/generation/language_model.h"
#include "services/inference/tokenizer/special_tokens.h"
#include "services/inference/tokenizer/tokenizer_parts.h"

namespace odmoe {

// Immutable, thread-safe.
class Tokenizer {
 public:
  // Longest text Encode takes.
  static constexpr size_t kMaxTextBytes = size_t{256} << 20;

  // INVALID_ARGUMENT: a key is missing, of another type or contradicts another, or the vocabulary
  // cannot write every byte. UNIMPLEMENTED: a tokenizer model or pre-tokenizer that is not known.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufMetadata& metadata);

  // The tokens of `text`. Defined for every sequence of bytes: text that is not UTF-8 is
  // INVALID_ARGUMENT, naming the offset, never guessed at; so is one longer than kMaxTextBytes.
  // Every UTF-8 text, the empty one included, has tokens (or none). With parse_special the names
  // of control tokens in the text are those tokens; user-defined tokens are recognized always.
  // Time O(n log n) for any text of n bytes, memory about 36 n.
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                              const TokenizeOptions& options) const;

  // The tokens' bytes, joined, control tokens by name: undoes Encode up to normalization, and but
  // for the spaces that SentencePiece puts after special tokens. May be cut inside a UTF-8
  // character. INVALID_ARGUMENT: a token outside the vocabulary.
  absl::StatusOr<std::string> Decode(absl::Span<const TokenId> tokens) const;

  // One token's bytes, control tokens by name. Empty for a token outside the vocabulary. Valid as
  // long as the tokenizer.
  absl::string_view Piece(TokenId token) const { return vocabulary_.Piece(token); }

  // Control tokens, the end of text among them, are not part of generated text.
  bool IsControl(TokenId token) const {
    return vocabulary_.Contains(token) && vocabulary_.type(token) == TokenType::kControl;
  }
  // The end of the text, of a turn or of a message.
  bool IsEndOfGeneration(TokenId token) const { return vocabulary_.IsEndOfGeneration(token); }

  bool Contains(TokenId token) const { return vocabulary_.Contains(token); }
  int32_t vocabulary_size() const { return vocabulary_.size(); }

  // -1: the model has none.
  TokenId bos_id() const { return vocabulary_.roles().bos; }
  TokenId eos_id() const { return vocabulary_.roles().eos; }  // end of text
  TokenId eot_id() const { return vocabulary_.roles().eot; }  // end of a turn
  bool adds_bos() const { return vocabulary_.roles().add_bos; }
  bool adds_eos() const { return vocabulary_.roles().add_eos; }

 private:
  explicit Tokenizer(TokenizerParts parts);
  // Recognized by name in a text.
  bool IsSpecial(TokenId token) const {
    const TokenType type = vocabulary_.type(token);
    return type == TokenType::kControl || type == TokenType::kUserDefined ||
           type == TokenType::kUnknown;
  }

  Vocabulary vocabulary_;
  SpecialTokens special_tokens_;
  std::unique_ptr<FragmentEncoder> encoder_;
  bool drops_first_space_;  // Encode put it there
};

}  // namespace odmoe
