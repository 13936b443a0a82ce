#include "services/inference/tokenizer/byte_level_bpe.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/pre_tokenizers.h"
#include "services/inference/tokenizer/pair_merger.h"
#include "services/inference/tokenizer/regex_splitter.h"

namespace odmoe {
namespace {

class ByteLevelBpe final : public FragmentEncoder {
 public:
  ByteLevelBpe(PairMerger merger, std::unique_ptr<RegexSplitter> splitter,
               const icu::Normalizer2* normalizer, bool ignore_merges)
      : merger_(std::move(merger)),
        splitter_(std::move(splitter)),
        normalizer_(normalizer),
        ignore_merges_(ignore_merges) {}

  absl::Status Encode(absl::string_view fragment, std::vector<TokenId>& tokens) const override {
    std::string normalized;
    if (normalizer_ != nullptr) {
      ODMOE_RETURN_IF_ERROR(Normalize(fragment, normalized));
      fragment = normalized;
    }
    PairMerger::Scratch scratch;
    return splitter_->Split(fragment, [&](absl::string_view piece) {
      const TokenId whole = ignore_merges_ ? merger_.Find(piece) : -1;
      if (whole >= 0) {
        tokens.push_back(whole);
      } else {
        merger_.Merge(piece, scratch, tokens);
      }
    });
  }

 private:
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

  PairMerger merger_;
  std::unique_ptr<RegexSplitter> splitter_;
  const icu::Normalizer2* normalizer_;  // ICU's own; null: text is taken as it is
  bool ignore_merges_;
};

absl::StatusOr<const PreTokenizer*> ReadPreTokenizer(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::string name, metadata.GetString("tokenizer.ggml.pre"));
  const PreTokenizer* found = FindPreTokenizer(name);
  if (found != nullptr) return found;
  const std::string known = absl::StrJoin(
      PreTokenizers(), ", ",
      [](std::string* out, const PreTokenizer& p) { absl::StrAppend(out, p.name); });
  return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.pre is '", name,
                                               "', which is not known; known are ", known));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FragmentEncoder>> MakeByteLevelBpe(const GgufMetadata& metadata,
                                                                  const Vocabulary& vocabulary) {
  ODMOE_ASSIGN_OR_RETURN(const PreTokenizer* pre, ReadPreTokenizer(metadata));
  ODMOE_ASSIGN_OR_RETURN(auto splitter, RegexSplitter::Create(pre->regexes));
  static const std::vector<std::string> kNoMerges;
  const std::vector<std::string>* merges = &kNoMerges;
  if (metadata.Find("tokenizer.ggml.merges") != nullptr) {
    ODMOE_ASSIGN_OR_RETURN(merges, metadata.GetStrings("tokenizer.ggml.merges"));
  }
  ODMOE_ASSIGN_OR_RETURN(PairMerger merger, PairMerger::Create(vocabulary, *merges));
  const icu::Normalizer2* normalizer = nullptr;
  if (pre->nfc) {
    UErrorCode error = U_ZERO_ERROR;
    normalizer = icu::Normalizer2::getNFCInstance(error);
    if (U_FAILURE(error)) {
      return absl::InternalError(absl::StrCat("ICU's NFC data: ", u_errorName(error)));
    }
  }
  return std::make_unique<ByteLevelBpe>(std::move(merger), std::move(splitter), normalizer,
                                        pre->ignore_merges);
}

}  // namespace odmoe
