#include "converter/huggingface/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/merges_file.h"
#include "converter/huggingface/sentencepiece_model.h"
#include "converter/huggingface/special_tokens.h"
#include "converter/huggingface/tiktoken_ranks.h"
#include "converter/huggingface/tokenizer_json.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/byte_characters.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxTokenizerBytes = uint64_t{128} << 20;
constexpr uint64_t kMaxTokenizerConfigBytes = uint64_t{32} << 20;
constexpr float kAddedScore = -1000;

// A checkpoint's tokenizer files. What is not there is null.
struct TokenizerFiles {
  nlohmann::json config = nlohmann::json::object();  // tokenizer_config.json
  std::string config_where;
  std::optional<nlohmann::json> tokenizer;  // tokenizer.json
  std::string tokenizer_where;
  bool from_merges = false;  // `tokenizer` is made of vocab.json and merges.txt
  std::optional<nlohmann::json> added;  // added_tokens.json
  std::string added_where;
};

absl::StatusOr<std::optional<nlohmann::json>> ReadIfThere(const Checkpoint& checkpoint,
                                                          const std::string& path,
                                                          uint64_t limit_bytes) {
  auto json = ReadJsonFile(checkpoint.file_system(), path, limit_bytes);
  if (absl::IsNotFound(json.status())) return std::optional<nlohmann::json>();
  if (!json.ok()) return json.status();
  return std::optional<nlohmann::json>(*std::move(json));
}

absl::StatusOr<std::optional<std::string>> ReadTextIfThere(const Checkpoint& checkpoint,
                                                           const std::string& path) {
  auto text = ReadWholeFile(checkpoint.file_system(), path, kMaxTokenizerBytes);
  if (absl::IsNotFound(text.status())) return std::optional<std::string>();
  if (!text.ok()) return text.status();
  return std::optional<std::string>(*std::move(text));
}

absl::StatusOr<TokenizerFiles> ReadFiles(const Checkpoint& checkpoint) {
  TokenizerFiles files;
  files.config_where = absl::StrCat(checkpoint.folder(), "/tokenizer_config.json");
  files.tokenizer_where = absl::StrCat(checkpoint.folder(), "/tokenizer.json");
  files.added_where = absl::StrCat(checkpoint.folder(), "/added_tokens.json");
  ODMOE_ASSIGN_OR_RETURN(auto config,
                         ReadIfThere(checkpoint, files.config_where, kMaxTokenizerConfigBytes));
  if (config) files.config = *std::move(config);
  ODMOE_ASSIGN_OR_RETURN(files.tokenizer,
                         ReadIfThere(checkpoint, files.tokenizer_where, kMaxTokenizerBytes));
  ODMOE_ASSIGN_OR_RETURN(files.added,
                         ReadIfThere(checkpoint, files.added_where, kMaxTokenizerConfigBytes));
  if (!files.tokenizer) {
    ODMOE_ASSIGN_OR_RETURN(files.tokenizer, ReadMergesFiles(checkpoint));
    files.from_merges = files.tokenizer.has_value();
    if (files.from_merges) files.tokenizer_where = absl::StrCat(checkpoint.folder(), "/vocab.json");
  }
  return files;
}

// added_tokens.json: tokens that the vocabulary's own file lacks, by id.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokensFile(const TokenizerFiles& files) {
  std::vector<AddedToken> added;
  if (!files.added) return added;
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         JsonObject::From(*files.added, files.added_where));
  for (const auto& [text, json] : object.value().items()) {
    ODMOE_ASSIGN_OR_RETURN(const int64_t id, object.Int(text.c_str(), 0, kMaxTokens));
    added.push_back({id, text});
  }
  return added;
}

// Those that tokenizer.json lists, and those that only tokenizer_config.json knows.
absl::StatusOr<std::vector<AddedToken>> AllAdded(const JsonObject& tokenizer,
                                                 const TokenizerFiles& files) {
  ODMOE_ASSIGN_OR_RETURN(std::vector<AddedToken> added, ReadAddedTokens(tokenizer));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> decoder,
                         ReadAddedTokensDecoder(files.config, files.config_where));
  absl::flat_hash_set<int64_t> known;
  for (const AddedToken& token : added) known.insert(token.id);
  for (const AddedToken& token : decoder) {
    if (known.insert(token.id).second) added.push_back(token);
  }
  if (!files.from_merges) return added;
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> listed, ReadAddedTokensFile(files));
  for (const AddedToken& token : listed) {
    if (known.insert(token.id).second) added.push_back(token);
  }
  return added;
}

absl::Status AddFromAddedTokensFile(const TokenizerFiles& files, TokenList& tokens) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> added, ReadAddedTokensFile(files));
  for (const AddedToken& token : added) {
    // Fine-tunes list tokens that their embedding has no row for; no text may become such.
    if (token.id >= tokens.size()) continue;
    ODMOE_RETURN_IF_ERROR(
        tokens.Replace(token.id, token.content, GgufTokenType::kUserDefined, kAddedScore));
  }
  return absl::OkStatus();
}

GgufTokenType TypeOf(SentencePiece::Type type) {
  switch (type) {
    case SentencePiece::kUnknown:
      return GgufTokenType::kUnknown;
    case SentencePiece::kControl:
      return GgufTokenType::kControl;
    case SentencePiece::kUnused:
      return GgufTokenType::kUnused;
    case SentencePiece::kByte:
      return GgufTokenType::kByte;
    case SentencePiece::kNormal:
    case SentencePiece::kUserDefined:
      break;
  }
  return GgufTokenType::kNormal;
}

void AddUnigramKeys(const SentencePieceModel& model, GgufMetadata& metadata) {
  metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(model.add_dummy_prefix));
  metadata.Set("tokenizer.ggml.remove_extra_whitespaces",
               GgufValue::Bool(model.remove_extra_whitespaces));
  if (model.precompiled_charsmap.empty()) return;
  std::vector<uint64_t> bytes;
  for (char byte : model.precompiled_charsmap) bytes.push_back(static_cast<uint8_t>(byte));
  metadata.Set("tokenizer.ggml.precompiled_charsmap",
               {.type = GgufType::kU8, .is_array = true, .array = std::move(bytes)});
}

// tokenizer.model.
absl::Status AddSentencePieceKeys(const std::string& bytes, const std::string& where,
                                  const TokenizerFiles& files, int64_t vocabulary_size,
                                  GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const SentencePieceModel model, ParseSentencePieceModel(bytes, where));
  if (model.kind == SentencePieceModel::kWords || model.kind == SentencePieceModel::kCharacters) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": a SentencePiece model of whole words or characters; only byte pairs and unigrams "
               "can be converted"));
  }
  TokenList tokens(vocabulary_size, where);
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type == SentencePiece::kByte && !ByteOfTokenText(piece.text)) {
      return absl::DataLossError(absl::StrCat(where, ": piece ", id, " ('",
                                              absl::CHexEscape(piece.text),
                                              "') is said to be a byte, but is not named as one"));
    }
    ODMOE_RETURN_IF_ERROR(tokens.Add(static_cast<int64_t>(id), piece.text, TypeOf(piece.type),
                                     piece.score));
  }
  ODMOE_RETURN_IF_ERROR(AddFromAddedTokensFile(files, tokens));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> decoder,
                         ReadAddedTokensDecoder(files.config, files.config_where));
  for (const AddedToken& token : decoder) {
    if (token.id >= tokens.size()) continue;
    ODMOE_RETURN_IF_ERROR(tokens.AddAdded(token, kAddedScore));
  }
  const bool unigram = model.kind == SentencePieceModel::kUnigram;
  if (!unigram && !model.add_dummy_prefix &&
      metadata.Find("tokenizer.ggml.add_space_prefix") == nullptr) {
    metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(false));
  }
  metadata.Set("tokenizer.ggml.model", GgufValue::String(unigram ? "t5" : "llama"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String("default"));
  tokens.AddKeys(/*with_scores=*/true, metadata);
  if (unigram) AddUnigramKeys(model, metadata);
  return absl::OkStatus();
}

// tiktoken.model, as Kimi has it: the special tokens' ids follow the ranks, and those that
// tokenizer_config.json does not name are reserved.
absl::Status AddTiktokenKeys(const std::string& text, const std::string& where,
                             const TokenizerFiles& files, int64_t vocabulary_size,
                             GgufMetadata& metadata) {
  constexpr int64_t kSpecialTokens = 256;
  ODMOE_ASSIGN_OR_RETURN(const std::vector<TiktokenRank> ranks, ParseTiktokenRanks(text, where));
  TokenList tokens(vocabulary_size, where);
  for (const TiktokenRank& entry : ranks) {
    std::string token;
    for (char byte : entry.bytes) token += CharacterOfByte(static_cast<uint8_t>(byte));
    ODMOE_RETURN_IF_ERROR(tokens.Add(entry.rank, std::move(token), GgufTokenType::kNormal));
  }
  const int64_t first = static_cast<int64_t>(ranks.size());
  for (int64_t id = first; id < std::min(first + kSpecialTokens, tokens.size()); ++id) {
    ODMOE_RETURN_IF_ERROR(tokens.Replace(id, absl::StrCat("<|reserved_token_", id, "|>"),
                                         GgufTokenType::kControl, 0));
  }
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> decoder,
                         ReadAddedTokensDecoder(files.config, files.config_where));
  for (const AddedToken& token : decoder) {
    if (token.id < first || token.id >= std::min(first + kSpecialTokens, tokens.size())) continue;
    ODMOE_RETURN_IF_ERROR(
        tokens.Replace(token.id, token.content, GgufTokenType::kControl, 0));
  }
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String("kimi-k2"));
  tokens.AddKeys(/*with_scores=*/false, metadata);
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(MergesOfRanks(ranks)));
  return absl::OkStatus();
}

absl::Status AddJsonKeys(const TokenizerFiles& files, const TokenizerOptions& options,
                         GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject tokenizer,
                         JsonObject::From(*files.tokenizer, files.tokenizer_where));
  ODMOE_ASSIGN_OR_RETURN(const TokenizerKind kind, KindOfTokenizerJson(tokenizer));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<AddedToken> added, AllAdded(tokenizer, files));
  if (kind == TokenizerKind::kByteFallback) {
    return AddByteFallbackKeys(tokenizer, added, options.vocabulary_size, metadata);
  }
  std::string pre_tokenizer = options.pre_tokenizer;
  if (files.from_merges && pre_tokenizer.empty()) {
    ODMOE_ASSIGN_OR_RETURN(pre_tokenizer, PreTokenizerOfClass(files.config, files.config_where));
  }
  return AddByteLevelKeys(tokenizer, added, options.vocabulary_size, pre_tokenizer, metadata);
}

// The vocabulary, from the first of the files that the reference converter would take it from.
absl::Status AddVocabularyKeys(const Checkpoint& checkpoint, const TokenizerFiles& files,
                               const TokenizerOptions& options, GgufMetadata& metadata) {
  const std::string model_where = absl::StrCat(checkpoint.folder(), "/tokenizer.model");
  const std::string ranks_where = absl::StrCat(checkpoint.folder(), "/tiktoken.model");
  ODMOE_ASSIGN_OR_RETURN(const auto model, ReadTextIfThere(checkpoint, model_where));
  if (model) {
    return AddSentencePieceKeys(*model, model_where, files, options.vocabulary_size, metadata);
  }
  if (files.tokenizer) return AddJsonKeys(files, options, metadata);
  ODMOE_ASSIGN_OR_RETURN(const auto ranks, ReadTextIfThere(checkpoint, ranks_where));
  if (ranks) {
    return AddTiktokenKeys(*ranks, ranks_where, files, options.vocabulary_size, metadata);
  }
  return absl::NotFoundError(absl::StrCat(
      checkpoint.folder(), ": no tokenizer: looked for tokenizer.model (SentencePiece), "
                           "tokenizer.json, vocab.json with merges.txt, and tiktoken.model"));
}

// What the reference converter knows of two models by the size of their vocabulary: the token that
// ends what CodeLlama fills in (readers know the others of a gap by their texts), and that
// Granite's texts begin with nothing.
void AddKeysOfKnownSizes(const Checkpoint& checkpoint, GgufMetadata& metadata) {
  const auto found = checkpoint.config().find("vocab_size");
  if (found == checkpoint.config().end() || !found->is_number_integer()) return;
  const int64_t size = found->get<int64_t>();
  constexpr char kEndKey[] = "tokenizer.ggml.eot_token_id";
  if (size == 32016 && metadata.Find(kEndKey) == nullptr) {
    metadata.Set(kEndKey, GgufValue::U32(32010));
  }
  if (size == 49152) metadata.Set("tokenizer.ggml.add_bos_token", GgufValue::Bool(false));
}

}  // namespace

absl::Status AddTokenizerKeys(const Checkpoint& checkpoint, const TokenizerOptions& options,
                              GgufMetadata& metadata) {
  ODMOE_ASSIGN_OR_RETURN(const TokenizerFiles files, ReadFiles(checkpoint));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject config,
                         JsonObject::From(files.config, files.config_where));
  const bool llama = metadata.GetStringOr("general.architecture", "").value_or("") == "llama";
  if (llama && config.Has("add_prefix_space")) {
    ODMOE_ASSIGN_OR_RETURN(const bool prefix, config.Bool("add_prefix_space"));
    metadata.Set("tokenizer.ggml.add_space_prefix", GgufValue::Bool(prefix));
  }
  ODMOE_RETURN_IF_ERROR(AddVocabularyKeys(checkpoint, files, options, metadata));
  std::vector<AddedToken> added;
  const bool has_json = files.tokenizer && !files.from_merges;
  const nlohmann::json tokenizer_json = has_json ? *files.tokenizer : nlohmann::json();
  if (has_json) {
    ODMOE_ASSIGN_OR_RETURN(const JsonObject tokenizer,
                           JsonObject::From(tokenizer_json, files.tokenizer_where));
    ODMOE_ASSIGN_OR_RETURN(added, ReadAddedTokens(tokenizer));
  }
  AddSpecialTokenKeys(checkpoint, tokenizer_json, files.config, added, options.vocabulary_size,
                      metadata);
  ODMOE_RETURN_IF_ERROR(AddChatTemplateKeys(checkpoint, files.config, metadata));
  AddNormalizerKeys(tokenizer_json, metadata);
  if (llama) AddKeysOfKnownSizes(checkpoint, metadata);
  return absl::OkStatus();
}

}  // namespace odmoe
