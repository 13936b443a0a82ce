#include "services/inference/tokenizer/tokenizer.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"

namespace odmoe {

Tokenizer::Tokenizer(TokenizerParts parts)
    : vocabulary_(std::move(parts.vocabulary)),
      special_tokens_(vocabulary_),
      encoder_(std::move(parts.encoder)),
      drops_first_space_(parts.drops_first_space) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(TokenizerParts parts, MakeTokenizerParts(metadata));
  return absl::WrapUnique(new Tokenizer(std::move(parts)));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(absl::string_view text,
                                                       const TokenizeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text of %d bytes, at most %d", text.size(), kMaxTextBytes));
  }
  const size_t invalid = FirstInvalidUtf8(text);
  if (invalid != text.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("text is not UTF-8 at byte %d", invalid));
  }
  std::vector<TokenId> tokens;
  if (options.add_special && adds_bos()) tokens.push_back(bos_id());
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match special = special_tokens_.Find(text, at, options.parse_special);
    absl::string_view fragment = text.substr(at, special.offset - at);
    at = special.offset + special.length;
    const bool found = special.length > 0;
    if (found && vocabulary_.StripsBefore(special.token)) {
      fragment = absl::StripTrailingAsciiWhitespace(fragment);
    }
    if (!fragment.empty()) ODMOE_RETURN_IF_ERROR(encoder_->Encode(fragment, tokens));
    if (found) tokens.push_back(special.token);
    if (found && vocabulary_.StripsAfter(special.token)) {
      while (at < text.size() && absl::ascii_isspace(static_cast<uint8_t>(text[at]))) ++at;
    }
  }
  if (options.add_special && adds_eos()) tokens.push_back(eos_id());
  if (options.add_special && vocabulary_.roles().add_sep) {
    tokens.push_back(vocabulary_.roles().sep);
  }
  return tokens;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const TokenId> tokens) const {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!Contains(tokens[i])) {
      return absl::InvalidArgumentError(absl::StrFormat("token %d at position %d, expected 0 to %d",
                                                        tokens[i], i, vocabulary_size() - 1));
    }
    absl::string_view piece = Piece(tokens[i]);
    if (i == 0 && drops_first_space_ && !IsSpecial(tokens[i])) absl::ConsumePrefix(&piece, " ");
    text.append(piece.data(), piece.size());
  }
  return text;
}

}  // namespace odmoe
