// The tokens of a model and what they stand for, from tokenizer.ggml.*.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/gguf.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// By its number in tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what the vocabulary cannot say
  kControl = 3,      // "<|im_end|>": steers the model, not text
  kUserDefined = 4,  // added to the vocabulary as text, never split
  kUnused = 5,       // a hole in the ids
  kByte = 6,         // "<0x0A>"
};

// Tokens with a part to play; -1: the model has none.
struct TokenRoles {
  TokenId bos = -1;
  TokenId eos = -1;  // end of text
  TokenId eot = -1;  // end of a turn
  TokenId eom = -1;  // end of a message
  TokenId unknown = -1;
  bool add_bos = false;  // before a text, where special tokens are to be added
  bool add_eos = false;  // after it
};

// Immutable, thread-safe.
class Vocabulary {
 public:
  // Of a byte-level vocabulary: a normal token's text is written in byte characters
  // (byte_characters.h), any other's is itself. INVALID_ARGUMENT: a key is missing, of another type
  // or contradicts another.
  static absl::StatusOr<Vocabulary> FromByteLevel(const GgufMetadata& metadata);

  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }
  bool Contains(TokenId token) const { return token >= 0 && token < size(); }
  // The bytes the token stands for. Empty for a token outside the vocabulary.
  absl::string_view Piece(TokenId token) const {
    return Contains(token) ? absl::string_view(pieces_[token]) : absl::string_view();
  }
  // The token is in the vocabulary.
  TokenType type(TokenId token) const { return types_[token]; }
  const TokenRoles& roles() const { return roles_; }
  // The end of the text, of a turn or of a message: as the roles say, or by a name that chat models
  // use for it where their files do not say.
  bool IsEndOfGeneration(TokenId token) const;

 private:
  Vocabulary() = default;
  absl::Status ReadTypes(const GgufMetadata& metadata);
  absl::Status ReadRoles(const GgufMetadata& metadata);
  void FindEndTokens();

  std::vector<std::string> pieces_;
  std::vector<TokenType> types_;
  TokenRoles roles_;
  std::vector<TokenId> end_tokens_;  // a handful
};

}  // namespace odmoe
