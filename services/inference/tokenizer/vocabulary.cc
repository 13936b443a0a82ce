#include "services/inference/tokenizer/vocabulary.h"

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/inference/tokenizer/byte_characters.h"

namespace odmoe {
namespace {

// Chat models end a turn with one of these; files often name only the end of text.
constexpr absl::string_view kEndNames[] = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>",     "<|end_of_text|>", "<|endoftext|>",
    "<|end|>",    "<|return|>", "<end_of_turn>", "<|EOT|>",         "<｜end▁of▁sentence｜>",
};

absl::StatusOr<TokenId> ReadRole(const GgufMetadata& metadata, absl::string_view name,
                                 int32_t vocabulary_size) {
  const std::string key = absl::StrFormat("tokenizer.ggml.%s_token_id", name);
  if (metadata.Find(key) == nullptr) return -1;
  ODMOE_ASSIGN_OR_RETURN(const uint32_t id, metadata.GetU32(key));
  // Files of vocabularies without such a token may say 2^32 - 1.
  if (id == std::numeric_limits<uint32_t>::max()) return -1;
  if (id >= static_cast<uint32_t>(vocabulary_size)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is %d, the vocabulary has %d tokens", key, id, vocabulary_size));
  }
  return static_cast<TokenId>(id);
}

// "<0x0A>" is that byte; anything else is itself.
std::string ByteTokenBytes(const std::string& text) {
  uint32_t byte;
  if (text.size() == 6 && absl::StartsWith(text, "<0x") && text.back() == '>' &&
      absl::SimpleHexAtoi(absl::string_view(text).substr(3, 2), &byte)) {
    return std::string(1, static_cast<char>(byte));
  }
  return text;
}

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::FromByteLevel(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string>* texts,
                         metadata.GetStrings("tokenizer.ggml.tokens"));
  if (texts->empty() || texts->size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.tokens has %d tokens, expected 1 to 2^31 - 1", texts->size()));
  }
  Vocabulary vocabulary;
  vocabulary.pieces_ = *texts;
  ODMOE_RETURN_IF_ERROR(vocabulary.ReadTypes(metadata));
  ODMOE_RETURN_IF_ERROR(vocabulary.ReadRoles(metadata));
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    std::string& piece = vocabulary.pieces_[token];
    if (vocabulary.types_[token] == TokenType::kByte) piece = ByteTokenBytes(piece);
    if (vocabulary.types_[token] == TokenType::kNormal) {
      piece = BytesOfCharacters(piece).value_or(piece);
    }
  }
  return vocabulary;
}

absl::Status Vocabulary::ReadTypes(const GgufMetadata& metadata) {
  constexpr absl::string_view kKey = "tokenizer.ggml.token_type";
  types_.assign(pieces_.size(), TokenType::kNormal);
  if (metadata.Find(kKey) == nullptr) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, metadata.GetInts(kKey));
  if (numbers.size() != pieces_.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s has %d entries for %d tokens", kKey,
                                                      numbers.size(), pieces_.size()));
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] < 1 || numbers[i] > 6) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: token %d is of type %d, expected 1 to 6", kKey, i, numbers[i]));
    }
    types_[i] = static_cast<TokenType>(numbers[i]);
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::ReadRoles(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(roles_.bos, ReadRole(metadata, "bos", size()));
  ODMOE_ASSIGN_OR_RETURN(roles_.eos, ReadRole(metadata, "eos", size()));
  ODMOE_ASSIGN_OR_RETURN(roles_.eot, ReadRole(metadata, "eot", size()));
  ODMOE_ASSIGN_OR_RETURN(roles_.eom, ReadRole(metadata, "eom", size()));
  ODMOE_ASSIGN_OR_RETURN(roles_.unknown, ReadRole(metadata, "unknown", size()));
  ODMOE_ASSIGN_OR_RETURN(roles_.add_bos,
                         metadata.GetBoolOr("tokenizer.ggml.add_bos_token", false));
  ODMOE_ASSIGN_OR_RETURN(roles_.add_eos,
                         metadata.GetBoolOr("tokenizer.ggml.add_eos_token", false));
  if ((roles_.add_bos && roles_.bos < 0) || (roles_.add_eos && roles_.eos < 0)) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_bos_token or add_eos_token is set, and the token's id is missing");
  }
  FindEndTokens();
  return absl::OkStatus();
}

void Vocabulary::FindEndTokens() {
  for (TokenId token : {roles_.eos, roles_.eot, roles_.eom}) {
    if (token >= 0) end_tokens_.push_back(token);
  }
  for (TokenId token = 0; token < size(); ++token) {
    if (types_[token] == TokenType::kControl &&
        std::find(std::begin(kEndNames), std::end(kEndNames), pieces_[token]) !=
            std::end(kEndNames)) {
      end_tokens_.push_back(token);
    }
  }
}

bool Vocabulary::IsEndOfGeneration(TokenId token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

}  // namespace odmoe
