#include "services/inference/tokenizer/tokenizer_parts.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/inference/tokenizer/byte_pair_encoder.h"
#include "services/inference/tokenizer/longest_match.h"
#include "services/inference/tokenizer/plamo_lattice.h"
#include "services/inference/tokenizer/sentencepiece_bpe.h"
#include "services/inference/tokenizer/unigram.h"
#include "services/inference/tokenizer/wordpiece.h"

namespace odmoe {
namespace {

absl::StatusOr<TokenizerParts> Make(Vocabulary vocabulary,
                                    absl::StatusOr<std::unique_ptr<FragmentEncoder>> encoder,
                                    bool drops_first_space = false) {
  if (!encoder.ok()) return encoder.status();
  return TokenizerParts{std::move(vocabulary), *std::move(encoder), drops_first_space};
}

absl::StatusOr<TokenizerParts> MakeBytePairs(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const PreTokenizer* pre, ReadPreTokenizer(metadata));
  ODMOE_ASSIGN_OR_RETURN(
      Vocabulary vocabulary,
      Vocabulary::Create(metadata,
                         {.spelling = pre->byte_characters ? TokenSpelling::kByteCharacters
                                      : pre->mark_spaces   ? TokenSpelling::kSpaceMarks
                                                           : TokenSpelling::kPlain,
                          .roles = {.add_bos = pre->add_bos}}));
  auto encoder = MakeBytePairEncoder(metadata, *pre, vocabulary);
  return Make(std::move(vocabulary), std::move(encoder));
}

absl::StatusOr<TokenizerParts> MakeSentencePiece(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(
      Vocabulary vocabulary,
      Vocabulary::Create(metadata,
                         {.spelling = TokenSpelling::kSpaceMarks,
                          .roles = {.bos = 1, .eos = 2, .unknown = 0, .add_bos = true}}));
  auto encoder = MakeSentencePieceBpe(metadata, vocabulary);
  ODMOE_ASSIGN_OR_RETURN(const bool prefix,
                         metadata.GetBoolOr("tokenizer.ggml.add_space_prefix", true));
  return Make(std::move(vocabulary), std::move(encoder), prefix);
}

absl::StatusOr<TokenizerParts> MakeUnigramModel(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(
      Vocabulary vocabulary,
      Vocabulary::Create(metadata, {.spelling = TokenSpelling::kSpaceMarks,
                                    .roles = {.eos = 1, .unknown = 2, .add_eos = true}}));
  auto encoder = MakeUnigram(metadata, vocabulary);
  ODMOE_ASSIGN_OR_RETURN(const bool prefix,
                         metadata.GetBoolOr("tokenizer.ggml.add_space_prefix", false));
  ODMOE_ASSIGN_OR_RETURN(const bool merged,
                         metadata.GetBoolOr("tokenizer.ggml.remove_extra_whitespaces", false));
  return Make(std::move(vocabulary), std::move(encoder), prefix || merged);
}

absl::StatusOr<TokenizerParts> MakeBert(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(
      Vocabulary vocabulary,
      Vocabulary::Create(
          metadata,
          {.spelling = TokenSpelling::kSpaceMarks,
           .roles = {.bos = 101, .sep = 102, .unknown = 100, .add_bos = true, .add_sep = true}}));
  auto encoder = MakeWordPiece(metadata, vocabulary);
  return Make(std::move(vocabulary), std::move(encoder), true);
}

absl::StatusOr<TokenizerParts> MakeRwkv(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(Vocabulary vocabulary,
                         Vocabulary::Create(metadata, {.spelling = TokenSpelling::kEscapes}));
  auto encoder = MakeLongestMatch(vocabulary);
  return Make(std::move(vocabulary), std::move(encoder));
}

absl::StatusOr<TokenizerParts> MakePlamo(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(
      Vocabulary vocabulary,
      Vocabulary::Create(metadata, {.spelling = TokenSpelling::kPlain,
                                    .roles = {.bos = 1, .eos = 2, .unknown = 0}}));
  auto encoder = MakePlamoLattice(vocabulary);
  return Make(std::move(vocabulary), std::move(encoder));
}

}  // namespace

absl::StatusOr<TokenizerParts> MakeTokenizerParts(const GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::string model, metadata.GetString("tokenizer.ggml.model"));
  if (model == "gpt2" || model == "gemma4" || model == "whitespace") return MakeBytePairs(metadata);
  if (model == "llama") return MakeSentencePiece(metadata);
  if (model == "t5") return MakeUnigramModel(metadata);
  if (model == "bert") return MakeBert(metadata);
  if (model == "rwkv") return MakeRwkv(metadata);
  if (model == "plamo2") return MakePlamo(metadata);
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.ggml.model is '", model,
                   "', which is not known; known are gpt2, gemma4, whitespace, llama, t5, bert, "
                   "rwkv, plamo2"));
}

}  // namespace odmoe
