#include "services/inference/tokenizer/tokenizer.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/utf8.h"
#include "services/inference/tokenizer/byte_level_bpe.h"

namespace odmoe {

Tokenizer::Tokenizer(Vocabulary vocabulary, std::unique_ptr<FragmentEncoder> encoder)
    : vocabulary_(std::move(vocabulary)),
      special_tokens_(vocabulary_),
      encoder_(std::move(encoder)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::string model, metadata.GetString("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.ggml.model is '", model, "'; only byte-level BPE ('gpt2') is supported",
        model == "llama" ? ", SentencePiece is not yet" : ""));
  }
  ODMOE_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::FromByteLevel(metadata));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<FragmentEncoder> encoder,
                         MakeByteLevelBpe(metadata, vocabulary));
  return absl::WrapUnique(new Tokenizer(std::move(vocabulary), std::move(encoder)));
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
    if (special.offset > at) {
      ODMOE_RETURN_IF_ERROR(encoder_->Encode(text.substr(at, special.offset - at), tokens));
    }
    if (special.length > 0) tokens.push_back(special.token);
    at = special.offset + special.length;
  }
  if (options.add_special && adds_eos()) tokens.push_back(eos_id());
  return tokens;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const TokenId> tokens) const {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!Contains(tokens[i])) {
      return absl::InvalidArgumentError(absl::StrFormat("token %d at position %d, expected 0 to %d",
                                                        tokens[i], i, vocabulary_size() - 1));
    }
    text.append(Piece(tokens[i]).data(), Piece(tokens[i]).size());
  }
  return text;
}

}  // namespace odmoe
