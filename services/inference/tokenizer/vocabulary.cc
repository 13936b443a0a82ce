#include "services/inference/tokenizer/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/byte_characters.h"

namespace odmoe {
namespace {

// Chat models end a turn with one of these; files often name only the end of text.
constexpr absl::string_view kEndNames[] = {
    "<|im_end|>",      "<|eot_id|>",  "<|eom_id|>",         "<|end_of_text|>",
    "<|endoftext|>",   "<|end|>",     "<|return|>",         "<|call|>",
    "<|calls|>",       "<|flush|>",   "<end_of_turn>",      "<|EOT|>",
    "<EOT>",           "_<EOT>",      "[EOT]",              "[EOS]",
    "</s>",            "<eos>",       "<end_of_utterance>", "<｜end▁of▁sentence｜>",
};

// `otherwise` where the file has no such key.
absl::StatusOr<TokenId> ReadRole(const GgufMetadata& metadata, absl::string_view name,
                                 int32_t vocabulary_size, TokenId otherwise) {
  const std::string key = absl::StrFormat("tokenizer.ggml.%s_token_id", name);
  if (metadata.Find(key) == nullptr) return otherwise < vocabulary_size ? otherwise : -1;
  ODMOE_ASSIGN_OR_RETURN(const uint32_t id, metadata.GetU32(key));
  // Files of vocabularies without such a token may say 2^32 - 1.
  if (id == std::numeric_limits<uint32_t>::max()) return -1;
  if (id >= static_cast<uint32_t>(vocabulary_size)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is %d, the vocabulary has %d tokens", key, id, vocabulary_size));
  }
  return static_cast<TokenId>(id);
}

// Whether `token` is added to a text; it has to be there where the file says so.
absl::StatusOr<bool> ReadAdd(const GgufMetadata& metadata, absl::string_view name, TokenId token,
                             bool otherwise) {
  const std::string key = absl::StrFormat("tokenizer.ggml.add_%s_token", name);
  ODMOE_ASSIGN_OR_RETURN(const bool add, metadata.GetBoolOr(key, otherwise && token >= 0));
  if (add && token < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is set, and the token's id is missing", key));
  }
  return add;
}

// "\\n", "\\t", "\\r", "\\xNN", and any other character after a backslash is itself.
std::string Unescape(absl::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      bytes += text[i];
      continue;
    }
    const char escape = text[++i];
    uint32_t byte;
    if (escape == 'x' && i + 2 < text.size() && absl::SimpleHexAtoi(text.substr(i + 1, 2), &byte)) {
      bytes += static_cast<char>(byte);
      i += 2;
    } else {
      bytes += escape == 'n' ? '\n' : escape == 't' ? '\t' : escape == 'r' ? '\r' : escape;
    }
  }
  return bytes;
}

// The bytes a token stands for.
std::string PieceOf(const std::string& text, TokenType type, TokenSpelling spelling) {
  if (spelling == TokenSpelling::kEscapes) return Unescape(text);
  if (type == TokenType::kByte) {
    const std::optional<uint8_t> byte = ByteOfTokenText(text);
    return byte ? std::string(1, static_cast<char>(*byte)) : text;
  }
  if (type != TokenType::kNormal) return text;
  switch (spelling) {
    case TokenSpelling::kByteCharacters:
      return BytesOfCharacters(text).value_or(text);
    case TokenSpelling::kSpaceMarks:
      return absl::StrReplaceAll(text, {{kSpaceMark, " "}});
    case TokenSpelling::kEscapes:
    case TokenSpelling::kPlain:
      break;
  }
  return text;
}

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::Create(const GgufMetadata& metadata,
                                              const VocabularyRules& rules) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string>* texts,
                         metadata.GetStrings("tokenizer.ggml.tokens"));
  if (texts->empty() || texts->size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.tokens has %d tokens, expected 1 to 2^31 - 1", texts->size()));
  }
  Vocabulary vocabulary;
  vocabulary.texts_ = *texts;
  ODMOE_RETURN_IF_ERROR(vocabulary.ReadTypes(metadata));
  ODMOE_RETURN_IF_ERROR(vocabulary.ReadScores(metadata));
  vocabulary.pieces_.reserve(texts->size());
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    vocabulary.pieces_.push_back(
        PieceOf(vocabulary.texts_[token], vocabulary.types_[token], rules.spelling));
  }
  ODMOE_RETURN_IF_ERROR(vocabulary.ReadRoles(metadata, rules.roles));
  vocabulary.FindByteTokens();
  vocabulary.FindEndTokens();
  vocabulary.FindStrips(metadata);
  return vocabulary;
}

absl::Status Vocabulary::ReadTypes(const GgufMetadata& metadata) {
  constexpr absl::string_view kKey = "tokenizer.ggml.token_type";
  types_.assign(texts_.size(), TokenType::kNormal);
  if (metadata.Find(kKey) == nullptr) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, metadata.GetInts(kKey));
  if (numbers.size() != texts_.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s has %d entries for %d tokens", kKey,
                                                      numbers.size(), texts_.size()));
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

absl::Status Vocabulary::ReadScores(const GgufMetadata& metadata) {
  constexpr absl::string_view kKey = "tokenizer.ggml.scores";
  if (metadata.Find(kKey) == nullptr) return absl::OkStatus();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<float> scores, metadata.GetFloats(kKey));
  if (scores.size() != texts_.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s has %d entries for %d tokens", kKey,
                                                      scores.size(), texts_.size()));
  }
  scores_ = scores;
  for (size_t i = 0; i < scores_.size(); ++i) {
    if (std::isnan(scores_[i])) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: token %d has no number", kKey, i));
    }
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::ReadRoles(const GgufMetadata& metadata, const TokenRoles& defaults) {
  ODMOE_ASSIGN_OR_RETURN(roles_.bos, ReadRole(metadata, "bos", size(), defaults.bos));
  ODMOE_ASSIGN_OR_RETURN(roles_.eos, ReadRole(metadata, "eos", size(), defaults.eos));
  // The key's name is misspelt in every file there is.
  ODMOE_ASSIGN_OR_RETURN(roles_.sep, ReadRole(metadata, "seperator", size(), defaults.sep));
  ODMOE_ASSIGN_OR_RETURN(roles_.eot, ReadRole(metadata, "eot", size(), defaults.eot));
  ODMOE_ASSIGN_OR_RETURN(roles_.eom, ReadRole(metadata, "eom", size(), defaults.eom));
  ODMOE_ASSIGN_OR_RETURN(roles_.unknown, ReadRole(metadata, "unknown", size(), defaults.unknown));
  ODMOE_ASSIGN_OR_RETURN(roles_.add_bos, ReadAdd(metadata, "bos", roles_.bos, defaults.add_bos));
  ODMOE_ASSIGN_OR_RETURN(roles_.add_eos, ReadAdd(metadata, "eos", roles_.eos, defaults.add_eos));
  roles_.add_sep = defaults.add_sep && roles_.sep >= 0;
  return absl::OkStatus();
}

void Vocabulary::FindByteTokens() {
  byte_tokens_.fill(-1);
  for (TokenId token = 0; token < size(); ++token) {
    if (types_[token] != TokenType::kByte && types_[token] != TokenType::kNormal) continue;
    const std::optional<uint8_t> byte = ByteOfTokenText(texts_[token]);
    if (byte && byte_tokens_[*byte] < 0) byte_tokens_[*byte] = token;
  }
}

void Vocabulary::FindEndTokens() {
  for (TokenId token : {roles_.eos, roles_.eot, roles_.eom}) {
    if (token >= 0) end_tokens_.push_back(token);
  }
  TokenId end = -1;
  bool returns = false, calls = false;
  for (TokenId token = 0; token < size(); ++token) {
    const absl::string_view text = texts_[token];
    if (types_[token] != TokenType::kControl ||
        std::find(std::begin(kEndNames), std::end(kEndNames), text) == std::end(kEndNames)) {
      continue;
    }
    end_tokens_.push_back(token);
    if (text == "<|end|>") end = token;
    returns = returns || text == "<|return|>" || text == "<|flush|>";
    calls = calls || text == "<|call|>" || text == "<|calls|>";
  }
  // Models that return or call end a message with <|end|> and go on.
  if (returns && calls) std::erase(end_tokens_, end);
}

// Some models' added tokens swallow the spaces beside them, and GGUF has no key for it: the models
// are known by name, as in the reference implementation.
void Vocabulary::FindStrips(const GgufMetadata& metadata) {
  strips_.assign(texts_.size(), 0);
  const auto name = [&](absl::string_view key) {
    return absl::AsciiStrToLower(metadata.GetStringOr(key, "").value_or(""));
  };
  const std::string model = name("general.name");
  const std::string pre = name("tokenizer.ggml.pre");
  const bool phi3 = absl::StrContains(model, "phi-3") || absl::StrContains(model, "phi3");
  const bool mask = absl::StartsWith(pre, "jina-v2-");
  const bool bracket_mask = absl::StrContains(model, "modern-bert");
  if (!phi3 && !mask && !bracket_mask) return;
  for (TokenId token = 0; token < size(); ++token) {
    const absl::string_view text = texts_[token];
    if ((mask && text == "<mask>") || (bracket_mask && text == "[MASK]")) strips_[token] |= kBefore;
    if (phi3 && types_[token] != TokenType::kNormal && text != "<unk>" && text != "<s>" &&
        text != "<|endoftext|>") {
      strips_[token] |= kAfter;
    }
  }
}

bool Vocabulary::IsEndOfGeneration(TokenId token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

}  // namespace odmoe
