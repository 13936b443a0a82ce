#include "services/inference/tokenizer/byte_pair_encoder.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/core/base/status_macros.h"
#include "services/inference/tokenizer/digit_groups.h"
#include "services/inference/tokenizer/pair_merger.h"
#include "services/inference/tokenizer/piece_cache.h"
#include "services/inference/tokenizer/regex_splitter.h"

namespace odmoe {
namespace {

class BytePairEncoder final : public FragmentEncoder {
 public:
  BytePairEncoder(const PreTokenizer& pre, PairMerger merger,
                  std::unique_ptr<RegexSplitter> splitter, const icu::Normalizer2* normalizer)
      : pre_(pre),
        merger_(std::move(merger)),
        splitter_(std::move(splitter)),
        normalizer_(normalizer) {}

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    std::string normalized;
    if (normalizer_ != nullptr) {
      ODMOE_RETURN_IF_ERROR(Normalize(fragment, normalized));
      fragment = normalized;
    }
    if (pre_.mark_spaces) {
      normalized = absl::StrReplaceAll(fragment, {{" ", kSpaceMark}});
      fragment = normalized;
    }
    PairMerger::Scratch scratch;
    PieceCache cache;
    const auto append = [&](absl::string_view piece) {
      cache.Append(piece, tokens, [&](absl::string_view met, std::vector<TokenId>& appended) {
        EncodePiece(met, scratch, appended);
      });
    };
    if (pre_.drop_spaces) {
      return splitter_->ForEachMatch(fragment, append);
    }
    for (const TextPart& part : CutDigitGroups(fragment, pre_.digit_groups)) {
      if (part.is_group) {
        append(part.text);
      } else {
        ODMOE_RETURN_IF_ERROR(splitter_->Split(part.text, append));
      }
    }
    return absl::OkStatus();
  }

 private:
  void EncodePiece(absl::string_view piece, PairMerger::Scratch& scratch,
                   std::vector<TokenId>& tokens) const {
    const bool whole =
        pre_.ignore_merges || (pre_.whole_line_ends &&
                               piece.find_first_not_of('\n') == absl::string_view::npos);
    const TokenId token = whole ? merger_.Find(piece) : -1;
    if (token >= 0) {
      tokens.push_back(token);
    } else {
      merger_.Merge(piece, scratch, tokens);
    }
  }

  absl::Status Normalize(absl::string_view text, std::string& normalized) const {
    UErrorCode error = U_ZERO_ERROR;
    icu::StringByteSink<std::string> sink(&normalized, static_cast<int32_t>(text.size()));
    normalizer_->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
                               sink, nullptr, error);
    if (U_FAILURE(error)) {
      return absl::InternalError(absl::StrCat("normalizing text: ", u_errorName(error)));
    }
    return absl::OkStatus();
  }

  const PreTokenizer& pre_;  // one of PreTokenizers()
  PairMerger merger_;
  std::unique_ptr<RegexSplitter> splitter_;
  const icu::Normalizer2* normalizer_;  // ICU's own; null: text is taken as it is
};

}  // namespace

absl::StatusOr<const PreTokenizer*> ReadPreTokenizer(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::string model, metadata.GetString("tokenizer.ggml.model"));
  ODMOE_ASSIGN_OR_RETURN(std::string name,
                         metadata.GetStringOr("tokenizer.ggml.pre", "default"));
  if (model == "gemma4") name = "gemma4";
  if (model == "whitespace") name = "whitespace";
  const PreTokenizer* found = FindPreTokenizer(name);
  if (found != nullptr) return found;
  const std::string known = absl::StrJoin(
      PreTokenizers(), ", ",
      [](std::string* out, const PreTokenizer& p) { absl::StrAppend(out, p.name); });
  return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.pre is '", name,
                                               "', which is not known; known are ", known));
}

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeBytePairEncoder(const GgufMetadata& metadata,
                                                                     const PreTokenizer& pre,
                                                                     const Vocabulary& vocabulary) {
  ODMOE_ASSIGN_OR_RETURN(auto splitter, RegexSplitter::Create(pre.regexes));
  static const std::vector<std::string> kNoMerges;
  const std::vector<std::string>* merges = &kNoMerges;
  if (metadata.Find("tokenizer.ggml.merges") != nullptr) {
    ODMOE_ASSIGN_OR_RETURN(merges, metadata.GetStrings("tokenizer.ggml.merges"));
  }
  ODMOE_ASSIGN_OR_RETURN(PairMerger merger,
                         PairMerger::Create(vocabulary, *merges, pre.byte_characters));
  const icu::Normalizer2* normalizer = nullptr;
  if (pre.nfc) {
    UErrorCode error = U_ZERO_ERROR;
    normalizer = icu::Normalizer2::getNFCInstance(error);
    if (U_FAILURE(error)) {
      return absl::InternalError(absl::StrCat("ICU's NFC data: ", u_errorName(error)));
    }
  }
  return std::make_unique<BytePairEncoder>(pre, std::move(merger), std::move(splitter),
                                           normalizer);
}

}  // namespace odmoe
