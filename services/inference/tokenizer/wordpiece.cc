#include "services/inference/tokenizer/wordpiece.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/inference/tokenizer/piece_cache.h"
#include "services/inference/tokenizer/token_trie.h"

namespace odmoe {
namespace {

// The blocks that BERT's authors took for Chinese; the gap before 0x2B920 is theirs.
bool IsIdeograph(UChar32 c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

bool IsPunctuation(UChar32 c) {
  const uint32_t mask = U_GET_GC_MASK(c);
  return (mask & U_GC_P_MASK) != 0 || (c < 0x7F && (mask & U_GC_S_MASK) != 0);
}

bool IsDropped(UChar32 c) {
  return c == 0 || c == 0xFFFD || (U_GET_GC_MASK(c) & U_GC_C_MASK) != 0;
}

class WordPiece final : public FragmentEncoder {
 public:
  WordPiece(const Vocabulary& vocabulary, bool lowercase, const icu::Normalizer2* decompose)
      : lowercase_(lowercase), decompose_(decompose), unknown_(vocabulary.roles().unknown) {
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
      if (vocabulary.type(token) == TokenType::kNormal) trie_.Add(vocabulary.Text(token), token);
    }
  }

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    auto text = icu::UnicodeString::fromUTF8(
        icu::StringPiece(fragment.data(), static_cast<int32_t>(fragment.size())));
    if (decompose_ != nullptr) {
      UErrorCode error = U_ZERO_ERROR;
      text = decompose_->normalize(text, error);
      if (U_FAILURE(error)) {
        return absl::InternalError(absl::StrCat("normalizing text: ", u_errorName(error)));
      }
    }
    std::string word;
    const auto flush = [&] {
      if (!word.empty()) AppendWord(absl::StrCat(kSpaceMark, word), tokens);
      word.clear();
    };
    for (int32_t at = 0; at < text.length();) {
      const UChar32 c = text.char32At(at);
      at += U16_LENGTH(c);
      if (u_isUWhiteSpace(c)) {
        flush();
        continue;
      }
      if (IsDropped(c) || (decompose_ != nullptr && (U_GET_GC_MASK(c) & U_GC_M_MASK) != 0))
        continue;
      const bool alone = IsPunctuation(c) || IsIdeograph(c);
      if (alone) flush();
      icu::UnicodeString(lowercase_ ? u_tolower(c) : c).toUTF8String(word);
      if (alone) flush();
    }
    flush();
    return absl::OkStatus();
  }

 private:
  void AppendWord(absl::string_view word, std::vector<TokenId>& tokens) const {
    const size_t first = tokens.size();
    for (size_t at = 0; at < word.size();) {
      size_t length = 0;
      TokenId longest = -1;
      TokenTrie::Node node = TokenTrie::kRoot;
      for (size_t end = at; end < word.size();) {
        node = trie_.Step(node, word[end++]);
        if (node == TokenTrie::kNone) break;
        if (trie_.TokenAt(node) >= 0) {
          longest = trie_.TokenAt(node);
          length = end - at;
        }
      }
      if (longest < 0) {
        tokens.resize(first);
        tokens.push_back(unknown_);
        return;
      }
      tokens.push_back(longest);
      at += length;
    }
  }

  const bool lowercase_;
  const icu::Normalizer2* decompose_;  // ICU's own; null: accents stay
  const TokenId unknown_;
  TokenTrie trie_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeWordPiece(const GgufMetadata& metadata,
                                                               const Vocabulary& vocabulary) {
  if (vocabulary.roles().unknown < 0) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.unknown_token_id: WordPiece has no other way to write every text");
  }
  ODMOE_ASSIGN_OR_RETURN(const bool lowercase,
                         metadata.GetBoolOr("tokenizer.ggml.normalizer.lowercase", true));
  ODMOE_ASSIGN_OR_RETURN(const bool strip_accents,
                         metadata.GetBoolOr("tokenizer.ggml.normalizer.strip_accents", lowercase));
  const icu::Normalizer2* decompose = nullptr;
  if (strip_accents) {
    UErrorCode error = U_ZERO_ERROR;
    decompose = icu::Normalizer2::getNFDInstance(error);
    if (U_FAILURE(error)) {
      return absl::InternalError(absl::StrCat("ICU's NFD data: ", u_errorName(error)));
    }
  }
  return std::make_unique<WordPiece>(vocabulary, lowercase, decompose);
}

}  // namespace odmoe
