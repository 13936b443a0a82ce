// The tokens of a model and what they stand for, from tokenizer.ggml.*.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/gguf.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// U+2581, which SentencePiece writes for a space.
inline constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";

// By its number in tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what the vocabulary cannot say
  kControl = 3,      // "<|im_end|>": steers the model, not text
  kUserDefined = 4,  // added to the vocabulary as text, never split
  kUnused = 5,       // a hole in the ids
  kByte = 6,         // "<0x0A>"
};

// How a normal token's text in the file stands for bytes.
enum class TokenSpelling {
  kByteCharacters,  // byte_characters.h
  kSpaceMarks,      // UTF-8, a space is U+2581
  kEscapes,         // "\n", "\x0a", as RWKV's file has them
  kPlain,           // UTF-8
};

// Tokens with a part to play; -1: the model has none.
struct TokenRoles {
  TokenId bos = -1;
  TokenId eos = -1;  // end of text
  TokenId sep = -1;  // between texts, and after the last
  TokenId eot = -1;  // end of a turn
  TokenId eom = -1;  // end of a message
  TokenId unknown = -1;
  bool add_bos = false;  // before a text, where special tokens are to be added
  bool add_eos = false;  // after it
  bool add_sep = false;  // after it
};

// What a family of tokenizers means where the file does not say.
struct VocabularyRules {
  TokenSpelling spelling = TokenSpelling::kByteCharacters;
  TokenRoles roles;  // a token that the vocabulary does not have is -1, and is not added
};

// Immutable, thread-safe.
class Vocabulary {
 public:
  // INVALID_ARGUMENT: a key is missing, of another type or contradicts another.
  static absl::StatusOr<Vocabulary> Create(const GgufMetadata& metadata,
                                           const VocabularyRules& rules);

  int32_t size() const { return static_cast<int32_t>(texts_.size()); }
  bool Contains(TokenId token) const { return token >= 0 && token < size(); }
  // The bytes the token stands for. Empty for a token outside the vocabulary.
  absl::string_view Piece(TokenId token) const {
    return Contains(token) ? absl::string_view(pieces_[token]) : absl::string_view();
  }
  // The token's text as the file has it; Contains(token).
  absl::string_view Text(TokenId token) const { return texts_[token]; }
  // tokenizer.ggml.scores, never NaN; 0 without them. Contains(token).
  float score(TokenId token) const { return scores_.empty() ? 0.0f : scores_[token]; }
  // The token written <0xNN> for this byte; -1: none.
  TokenId ByteToken(uint8_t byte) const { return byte_tokens_[byte]; }
  // ASCII white space before or after the token's name in a text belongs to the name.
  bool StripsBefore(TokenId token) const { return (strips_[token] & kBefore) != 0; }
  bool StripsAfter(TokenId token) const { return (strips_[token] & kAfter) != 0; }
  // The token is in the vocabulary.
  TokenType type(TokenId token) const { return types_[token]; }
  const TokenRoles& roles() const { return roles_; }
  // The end of the text, of a turn or of a message: as the roles say, or by a name that chat models
  // use for it where their files do not say.
  bool IsEndOfGeneration(TokenId token) const;

 private:
  enum Strip : uint8_t { kBefore = 1, kAfter = 2 };

  Vocabulary() = default;
  absl::Status ReadTypes(const GgufMetadata& metadata);
  absl::Status ReadScores(const GgufMetadata& metadata);
  absl::Status ReadRoles(const GgufMetadata& metadata, const TokenRoles& defaults);
  void FindByteTokens();
  void FindEndTokens();
  void FindStrips(const GgufMetadata& metadata);

  std::vector<std::string> texts_;
  std::vector<std::string> pieces_;
  std::vector<TokenType> types_;
  std::vector<float> scores_;
  std::vector<uint8_t> strips_;
  std::array<TokenId, 256> byte_tokens_;
  TokenRoles roles_;
  std::vector<TokenId> end_tokens_;  // a handful
};

}  // namespace odmoe
