#include "converter/huggingface/tokenizer.h"

#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "converter/huggingface/special_tokens.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTokenizerBytes = uint64_t{128} << 20;
constexpr uint64_t kMaxTokenizerConfigBytes = uint64_t{32} << 20;
constexpr int64_t kMaxTokens = 1 << 24;

// tokenizer.ggml.token_type
enum TokenType : int64_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

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

absl::Status CheckIsByteLevelBpe(const JsonObject& tokenizer) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, tokenizer.Object("model"));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject decoder, tokenizer.Object("decoder"));
  const std::string decoder_text = decoder.value().dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
  const bool byte_fallback =
      model.Has("byte_fallback") && model.value()["byte_fallback"] == nlohmann::json(true);
  if (model.String("type").value_or("BPE") != "BPE" || byte_fallback ||
      !absl::StrContains(decoder_text, "\"ByteLevel\"")) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokenizer.where(), ": not a byte-level BPE tokenizer (model ",
                     model.String("type").value_or("of unknown type"),
                     byte_fallback ? " with byte_fallback" : "", ", decoder ", decoder_text,
                     "); no other kind can be converted yet"));
  }
  return absl::OkStatus();
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

// From tokenizer.json, and those that only tokenizer_config.json knows.
absl::StatusOr<std::vector<AddedToken>> ReadAdded(const JsonObject& tokenizer,
                                                  const nlohmann::json& config,
                                                  const std::string& config_where) {
  std::vector<AddedToken> added;
  absl::flat_hash_map<int64_t, bool> known;
  if (tokenizer.Has("added_tokens")) {
    ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* list, tokenizer.Array("added_tokens"));
    const std::string where = absl::StrCat(tokenizer.where(), ": added_tokens");
    for (const nlohmann::json& json : *list) {
      ODMOE_ASSIGN_OR_RETURN(AddedToken token, ParseAdded(json, std::nullopt, where));
      known[token.id] = true;
      added.push_back(std::move(token));
    }
  }
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(config, config_where));
  if (!object.Has("added_tokens_decoder")) return added;
  ODMOE_ASSIGN_OR_RETURN(const JsonObject decoder, object.Object("added_tokens_decoder"));
  for (const auto& [key, json] : decoder.value().items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id > kMaxTokens) {
      return decoder.Wrong(key.c_str(), "under a token's id");
    }
    if (known.contains(id)) continue;
    ODMOE_ASSIGN_OR_RETURN(AddedToken token, ParseAdded(json, id, decoder.where()));
    added.push_back(std::move(token));
  }
  return added;
}

// The tokens by id and their types.
class Vocabulary {
 public:
  Vocabulary(int64_t size, std::string where)
      : tokens_(static_cast<size_t>(size)),
        types_(static_cast<size_t>(size), kUnused),
        where_(std::move(where)) {}

  absl::Status AddNormal(const nlohmann::json& vocab) {
    for (const auto& [token, id_json] : vocab.items()) {
      if (!id_json.is_number_unsigned()) return Bad(token, "its id is not a number");
      const uint64_t id = id_json.get<uint64_t>();
      if (id >= tokens_.size()) return OutOfRange(token, id);
      if (types_[id] != kUnused) return Bad(token, absl::StrCat("its id ", id, " is taken"));
      tokens_[id] = token;
      types_[id] = kNormal;
    }
    return absl::OkStatus();
  }

  absl::Status Add(const AddedToken& token) {
    const size_t id = static_cast<size_t>(token.id);
    if (id >= tokens_.size()) return OutOfRange(token.content, id);
    const bool control = token.special || LooksSpecial(token.content);
    types_[id] = control ? kControl : kUserDefined;
    // User-defined tokens are matched in the text itself, where a space is a space.
    tokens_[id] = control ? token.content
                          : absl::StrReplaceAll(token.content, {{"\u2581", " "}});
    return absl::OkStatus();
  }

  void FillGaps() {
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (types_[id] == kUnused) tokens_[id] = absl::StrCat("[PAD", id, "]");
    }
  }

  std::vector<std::string> TakeTokens() { return std::move(tokens_); }
  std::vector<int64_t> TakeTypes() { return std::move(types_); }

 private:
  absl::Status Bad(const std::string& token, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(where_, ": token '", token, "': ", what));
  }
  absl::Status OutOfRange(const std::string& token, uint64_t id) const {
    return Bad(token, absl::StrCat("its id ", id, " is not below the model's vocabulary size ",
                                   tokens_.size()));
  }

  std::vector<std::string> tokens_;
  std::vector<int64_t> types_;
  const std::string where_;
};

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

absl::StatusOr<const PreTokenizer*> ChoosePreTokenizer(const nlohmann::json& tokenizer,
                                                       const std::string& name,
                                                       const std::string& where) {
  if (name.empty()) return RecognizeTokenizerJson(tokenizer, where);
  const PreTokenizer* pre = FindPreTokenizer(name);
  if (pre == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("unknown pre-tokenizer '", name, "'"));
  }
  return pre;
}

absl::StatusOr<nlohmann::json> ReadTokenizerConfig(const Checkpoint& checkpoint) {
  auto config = ReadJsonFile(checkpoint.file_system(),
                             absl::StrCat(checkpoint.folder(), "/tokenizer_config.json"),
                             kMaxTokenizerConfigBytes);
  if (absl::IsNotFound(config.status())) return nlohmann::json::object();
  return config;
}

}  // namespace

absl::Status AddTokenizerKeys(const Checkpoint& checkpoint, const TokenizerOptions& options,
                              GgufMetadata& metadata) {
  const std::string where = absl::StrCat(checkpoint.folder(), "/tokenizer.json");
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json,
                         ReadJsonFile(checkpoint.file_system(), where, kMaxTokenizerBytes));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject tokenizer, JsonObject::From(json, where));
  ODMOE_RETURN_IF_ERROR(CheckIsByteLevelBpe(tokenizer));
  ODMOE_ASSIGN_OR_RETURN(const PreTokenizer* pre,
                         ChoosePreTokenizer(json, options.pre_tokenizer, where));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json config, ReadTokenizerConfig(checkpoint));
  ODMOE_ASSIGN_OR_RETURN(
      const std::vector<AddedToken> added,
      ReadAdded(tokenizer, config, absl::StrCat(checkpoint.folder(), "/tokenizer_config.json")));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject model, tokenizer.Object("model"));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject vocab, model.Object("vocab"));
  Vocabulary vocabulary(options.vocabulary_size, where);
  ODMOE_RETURN_IF_ERROR(vocabulary.AddNormal(vocab.value()));
  for (const AddedToken& token : added) ODMOE_RETURN_IF_ERROR(vocabulary.Add(token));
  vocabulary.FillGaps();
  ODMOE_ASSIGN_OR_RETURN(std::vector<std::string> merges, ReadMerges(model));
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String(std::string(pre->name)));
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(vocabulary.TakeTokens()));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(vocabulary.TakeTypes()));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(std::move(merges)));
  AddSpecialTokenKeys(checkpoint, json, config, added, options.vocabulary_size, metadata);
  return AddChatTemplateKeys(checkpoint, config, metadata);
}

}  // namespace odmoe
