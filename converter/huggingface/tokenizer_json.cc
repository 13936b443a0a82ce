#include "converter/huggingface/tokenizer_json.h"

#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "converter/huggingface/tokenizer.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/byte_characters.h"

namespace odmoe {
namespace {

std::string Show(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<AddedToken> ParseAdded(const nlohmann::json& json, std::optional<int64_t> id,
                                      const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  AddedToken token;
  if (id.has_value()) {
    token.id = *id;
  } else {
    ODMOE_ASSIGN_OR_RETURN(token.id, object.Int("id", 0, kMaxTokens));
  }
  ODMOE_ASSIGN_OR_RETURN(token.content, object.String("content"));
  if (object.Has("special")) {
    ODMOE_ASSIGN_OR_RETURN(token.special, object.Bool("special"));
  }
  return token;
}

// The vocabulary proper, by id.
absl::Status AddVocabulary(const JsonObject& vocab, bool byte_tokens, TokenList& tokens) {
  for (const auto& [token, id_json] : vocab.value().items()) {
    if (!id_json.is_number_unsigned() || id_json.get<uint64_t>() > kMaxTokens) {
      return absl::DataLossError(
          absl::StrCat(tokens.where(), ": token '", token, "': its id is not a number below ",
                       kMaxTokens));
    }
    const bool is_byte = byte_tokens && ByteOfTokenText(token).has_value();
    ODMOE_RETURN_IF_ERROR(
        tokens.Add(id_json.get<int64_t>(), token,
                   is_byte ? GgufTokenType::kByte : GgufTokenType::kNormal));
  }
  return absl::OkStatus();
}

// "a b" each. Pairs, which newer files have, may hold spaces; GGUF's one separator is a space, so
// those become the byte-level alphabet's sign for it.
absl::StatusOr<std::vector<std::string>> ReadMerges(const JsonObject& model) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* list, model.Array("merges"));
  std::vector<std::string> merges;
  merges.reserve(list->size());
  for (const nlohmann::json& merge : *list) {
    if (merge.is_string()) {
      merges.push_back(merge.get<std::string>());
      continue;
    }
    if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
      return model.Wrong("merges", "an array of strings or pairs of strings");
    }
    const auto part = [&](size_t i) {
      return absl::StrReplaceAll(merge[i].get<std::string>(), {{" ", "\u0120"}});
    };
    merges.push_back(absl::StrCat(part(0), " ", part(1)));
  }
  return merges;
}

absl::StatusOr<std::string> ChoosePreTokenizer(const JsonObject& tokenizer,
                                               const std::vector<AddedToken>& added,
                                               const std::string& name) {
  if (!name.empty()) {
    if (FindPreTokenizer(name) != nullptr) return name;
    return absl::InvalidArgumentError(absl::StrCat("unknown pre-tokenizer '", name, "'"));
  }
  ODMOE_ASSIGN_OR_RETURN(const PreTokenizer* pre,
                         RecognizeTokenizerJson(tokenizer.value(), tokenizer.where()));
  return std::string(NameOfPreTokenizer(*pre, added));
}

// The SentencePiece normalizers that GGUF says with add_space_prefix alone: a mark in front, spaces
// as marks. True: with the mark in front.
absl::StatusOr<bool> ReadSpaceNormalizer(const JsonObject& tokenizer) {
  const auto bad = [&](const nlohmann::json& step) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokenizer.where(), ": normalizer ", Show(step),
        " is not supported: beside BPE with byte_fallback only Prepend and Replace, of U+2581 for "
        "spaces, can be converted"));
  };
  bool prefix = false;
  if (tokenizer.Has("normalizer")) {
    const nlohmann::json& normalizer = tokenizer.value()["normalizer"];
    const nlohmann::json steps = normalizer.is_object() && normalizer.contains("normalizers")
                                     ? normalizer["normalizers"]
                                     : nlohmann::json::array({normalizer});
    const nlohmann::json prepend = {{"type", "Prepend"}, {"prepend", "\u2581"}};
    const nlohmann::json replace = {
        {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
    for (const nlohmann::json& step : steps) {
      if (step != prepend && step != replace) return bad(step);
      prefix = prefix || step == prepend;
    }
  }
  if (tokenizer.Has("pre_tokenizer")) {
    const nlohmann::json& step = tokenizer.value()["pre_tokenizer"];
    if (!step.is_object() || step.value("type", nlohmann::json()) != "Metaspace") return bad(step);
    prefix = prefix || step.value("prepend_scheme", nlohmann::json("always")) != "never";
  }
  return prefix;
}

// The first merge that makes a token gives its score: what SentencePiece trained in that order.
absl::Status SetScores(const JsonObject& model, const JsonObject& vocab, TokenList& tokens) {
  constexpr float kNeverMade = -1e6f;
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* list, model.Array("merges"));
  for (const auto& [token, id] : vocab.value().items()) {
    tokens.SetScore(id.get<int64_t>(), kNeverMade);
  }
  absl::flat_hash_map<int64_t, bool> made;
  for (size_t rank = 0; rank < list->size(); ++rank) {
    const nlohmann::json& merge = (*list)[rank];
    std::string whole;
    if (merge.is_string()) {
      whole = merge.get<std::string>();
      const size_t space = whole.find(' ', 1);
      if (space != std::string::npos) whole.erase(space, 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      whole = absl::StrCat(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      return model.Wrong("merges", "an array of strings or pairs of strings");
    }
    const auto found = vocab.value().find(whole);
    if (found == vocab.value().end()) continue;
    const int64_t id = found->get<int64_t>();
    if (made.try_emplace(id, true).second) tokens.SetScore(id, -static_cast<float>(rank));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonObject& tokenizer) {
  std::vector<AddedToken> added;
  if (!tokenizer.Has("added_tokens")) return added;
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* list, tokenizer.Array("added_tokens"));
  const std::string where = absl::StrCat(tokenizer.where(), ": added_tokens");
  for (const nlohmann::json& json : *list) {
    ODMOE_ASSIGN_OR_RETURN(AddedToken token, ParseAdded(json, std::nullopt, where));
    added.push_back(std::move(token));
  }
  return added;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensDecoder(const nlohmann::json& config,
                                                               const std::string& where) {
  std::vector<AddedToken> added;
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(config, where));
  if (!object.Has("added_tokens_decoder")) return added;
  ODMOE_ASSIGN_OR_RETURN(const JsonObject decoder, object.Object("added_tokens_decoder"));
  for (const auto& [key, json] : decoder.value().items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id > kMaxTokens) {
      return decoder.Wrong(key.c_str(), "under a token's id");
    }
    ODMOE_ASSIGN_OR_RETURN(AddedToken token, ParseAdded(json, id, decoder.where()));
    added.push_back(std::move(token));
  }
  return added;
}

absl::StatusOr<TokenizerKind> KindOfTokenizerJson(const JsonObject& tokenizer) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, tokenizer.Object("model"));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject decoder, tokenizer.Object("decoder"));
  const bool byte_fallback =
      model.Has("byte_fallback") && model.value()["byte_fallback"] == nlohmann::json(true);
  if (model.String("type").value_or("BPE") == "BPE") {
    const std::string shown = Show(decoder.value());
    if (!byte_fallback && absl::StrContains(shown, "\"ByteLevel\"")) {
      return TokenizerKind::kByteLevel;
    }
    if (byte_fallback && decoder.String("type").value_or("") == "Sequence") {
      return TokenizerKind::kByteFallback;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      tokenizer.where(), ": a tokenizer that cannot be converted (model ",
      model.String("type").value_or("of unknown type"), byte_fallback ? " with byte_fallback" : "",
      ", decoder ", Show(decoder.value()),
      "); it should be BPE with a ByteLevel decoder, or BPE with byte_fallback and a Sequence"));
}

absl::Status AddByteLevelKeys(const JsonObject& tokenizer, const std::vector<AddedToken>& added,
                              int64_t vocabulary_size, const std::string& pre_tokenizer,
                              GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const std::string pre,
                         ChoosePreTokenizer(tokenizer, added, pre_tokenizer));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, tokenizer.Object("model"));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject vocab, model.Object("vocab"));
  TokenList tokens(vocabulary_size, tokenizer.where());
  ODMOE_RETURN_IF_ERROR(AddVocabulary(vocab, false, tokens));
  for (const AddedToken& token : added) ODMOE_RETURN_IF_ERROR(tokens.AddAdded(token));
  ODMOE_ASSIGN_OR_RETURN(std::vector<std::string> merges, ReadMerges(model));
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String(pre));
  tokens.AddKeys(/*with_scores=*/false, metadata);
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(std::move(merges)));
  return absl::OkStatus();
}

absl::Status AddByteFallbackKeys(const JsonObject& tokenizer, const std::vector<AddedToken>& added,
                                 int64_t vocabulary_size, GgufMetadata& metadata) {
  constexpr float kAddedScore = -1000;
  ODMOE_ASSIGN_OR_RETURN(const bool prefix, ReadSpaceNormalizer(tokenizer));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, tokenizer.Object("model"));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject vocab, model.Object("vocab"));
  TokenList tokens(vocabulary_size, tokenizer.where());
  ODMOE_RETURN_IF_ERROR(AddVocabulary(vocab, true, tokens));
  ODMOE_RETURN_IF_ERROR(SetScores(model, vocab, tokens));
  for (const AddedToken& token : added) ODMOE_RETURN_IF_ERROR(tokens.AddAdded(token, kAddedScore));
  if (!prefix && metadata.Find("tokenizer.ggml.add_space_prefix") == nullptr) {
    metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false));
  }
  metadata.Set("tokenizer.ggml.model", GgufValue::String("llama"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String("default"));
  tokens.AddKeys(/*with_scores=*/true, metadata);
  return absl::OkStatus();
}

}  // namespace odmoe
