#include "converter/huggingface/token_list.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr int64_t kUnused = static_cast<int64_t>(GgufTokenType::kUnused);
constexpr double kPaddingScore = -10000;

// Added tokens that their authors forgot to mark as special.
bool LooksSpecial(absl::string_view token) {
  for (absl::string_view known : {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}) {
    if (token == known) return true;
  }
  const auto enclosed = [&](absl::string_view left, absl::string_view right) {
    return absl::StartsWith(token, left) && absl::EndsWith(token, right);
  };
  return enclosed("<|", "|>") || enclosed("<\uff5c", "\uff5c>") || enclosed("<unused", ">");
}

}  // namespace

TokenList::TokenList(int64_t size, std::string where)
    : texts_(static_cast<size_t>(size)),
      types_(static_cast<size_t>(size), kUnused),
      scores_(static_cast<size_t>(size), kPaddingScore),
      where_(std::move(where)) {
  for (size_t id = 0; id < texts_.size(); ++id) texts_[id] = absl::StrCat("[PAD", id, "]");
}

absl::Status TokenList::CheckId(int64_t id, absl::string_view text) const {
  if (id >= 0 && id < size()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      where_, ": token '", text, "': its id ", id, " is not below the model's vocabulary size ",
      size(),
      " (config.json's vocab_size): the tokenizer has more tokens than the embedding rows"));
}

absl::Status TokenList::Add(int64_t id, std::string text, GgufTokenType type, float score) {
  ODMOE_RETURN_IF_ERROR(CheckId(id, text));
  const size_t at = static_cast<size_t>(id);
  if (types_[at] != kUnused) {
    return absl::DataLossError(
        absl::StrCat(where_, ": token '", text, "': its id ", id, " is taken"));
  }
  return Replace(id, std::move(text), type, score);
}

absl::Status TokenList::Replace(int64_t id, std::string text, GgufTokenType type, float score) {
  ODMOE_RETURN_IF_ERROR(CheckId(id, text));
  const size_t at = static_cast<size_t>(id);
  texts_[at] = std::move(text);
  types_[at] = static_cast<int64_t>(type);
  scores_[at] = score;
  return absl::OkStatus();
}

absl::Status TokenList::AddAdded(const AddedToken& token, float score) {
  ODMOE_RETURN_IF_ERROR(CheckId(token.id, token.content));
  const size_t at = static_cast<size_t>(token.id);
  const bool control = token.special || LooksSpecial(token.content);
  texts_[at] = control ? token.content : absl::StrReplaceAll(token.content, {{"\u2581", " "}});
  types_[at] =
      static_cast<int64_t>(control ? GgufTokenType::kControl : GgufTokenType::kUserDefined);
  scores_[at] = score;
  return absl::OkStatus();
}

void TokenList::AddKeys(bool with_scores, GgufMetadata& metadata) {
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(std::move(texts_)));
  if (with_scores) metadata.Set("tokenizer.ggml.scores", GgufValue::F32s(std::move(scores_)));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(std::move(types_)));
}

}  // namespace odmoe
