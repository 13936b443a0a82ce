// Tokenizers beside byte-level BPE: SentencePiece's file, a tokenizer.json with byte fallback,
// ranks.
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/merges_file.h"
#include "converter/huggingface/sentencepiece_model.h"
#include "converter/huggingface/tiktoken_ranks.h"
#include "converter/huggingface/tokenizer.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Protocol buffers by hand: field 1 and up, lengths below 128.
std::string Bytes(int field, const std::string& bytes) {
  return absl::StrCat(std::string(1, static_cast<char>(field << 3 | 2)),
                      std::string(1, static_cast<char>(bytes.size())), bytes);
}
std::string Number(int field, int value) {
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}
std::string Score(float score) {
  std::string bytes(5, static_cast<char>(2 << 3 | 5));
  std::memcpy(bytes.data() + 1, &score, 4);
  return bytes;
}
std::string Piece(const std::string& text, float score, int type = 1) {
  return Bytes(1, absl::StrCat(Bytes(1, text), Score(score), Number(3, type)));
}

std::string Model(int kind, bool prefix, const std::string& map = "") {
  return absl::StrCat(Piece("<unk>", 0, 2), Piece("<s>", 0, 3), Piece("<0x0A>", 0, 6),
                      Piece("\u2581a", -1.5f), Piece("mine", 0, 4), Piece("hole", 0, 5),
                      Bytes(2, Number(3, kind)),
                      Bytes(3, absl::StrCat(Number(3, prefix ? 1 : 0), Number(4, 0),
                                            map.empty() ? "" : Bytes(2, map))));
}

using Files = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<GgufMetadata> Convert(const Files& files, int64_t vocabulary_size,
                                     const std::string& architecture = "llama") {
  TemporaryDirectory folder;
  std::filesystem::create_symlink(ODMOE_TEST_DATA "/tiny-kimi/model.safetensors",
                                  folder / "model.safetensors");
  WriteFileOrDie(folder / "config.json", R"({"bos_token_id": 1, "eos_token_id": 2})");
  for (const auto& [name, content] : files) WriteFileOrDie(folder / name, content);
  const auto checkpoint = Checkpoint::Open(PosixFileSystem(), folder.path());
  if (!checkpoint.ok()) return checkpoint.status();
  GgufMetadata metadata;
  metadata.Set("general.architecture", GgufValue::String(architecture));
  const absl::Status status =
      AddTokenizerKeys(**checkpoint, {.vocabulary_size = vocabulary_size}, metadata);
  if (!status.ok()) return status;
  return metadata;
}

std::vector<std::string> Keys(const GgufMetadata& metadata) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata.entries()) {
    if (key != "general.architecture") keys.push_back(key.substr(sizeof "tokenizer.ggml." - 1));
  }
  return keys;
}

TEST(SentencePieceTokenizerTest, GivesPiecesAddedTokensAndPads) {
  const auto metadata = Convert(
      {{"tokenizer.model", Model(2, true)},
       {"added_tokens.json", R"({"<more>": 6, "<beyond>": 99})"},
       {"tokenizer_config.json",
        R"({"added_tokens_decoder": {"1": {"content": "<s>", "special": true},
                                      "7": {"content": "\u2581x", "special": false},
                                      "99": {"content": "<beyond>", "special": true}}})"}},
      9);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_THAT(Keys(*metadata), ElementsAre("model", "pre", "tokens", "scores", "token_type",
                                           "bos_token_id", "eos_token_id"));
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.pre"), "default");
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.tokens"),
              ElementsAre("<unk>", "<s>", "<0x0A>", "\u2581a", "mine", "hole", "<more>", " x",
                          "[PAD8]"));
  EXPECT_THAT(*metadata->GetFloats("tokenizer.ggml.scores"),
              ElementsAre(0, -1000, 0, -1.5f, 0, 0, -1000, -1000, -10000));
  EXPECT_THAT(*metadata->GetInts("tokenizer.ggml.token_type"),
              ElementsAre(2, 3, 6, 1, 1, 5, 4, 4, 5));
}

TEST(SentencePieceTokenizerTest, UnigramsKeepTheirNormalizer) {
  const auto metadata = Convert({{"tokenizer.model", Model(1, true, std::string("\0\xff", 2))}}, 6);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.model"), "t5");
  EXPECT_TRUE(*metadata->GetBool("tokenizer.ggml.add_space_prefix"));
  EXPECT_FALSE(*metadata->GetBool("tokenizer.ggml.remove_extra_whitespaces"));
  EXPECT_THAT(*metadata->GetInts("tokenizer.ggml.precompiled_charsmap"), ElementsAre(0, 255));
  EXPECT_EQ(metadata->Find("tokenizer.ggml.precompiled_charsmap")->type, GgufType::kU8);
}

TEST(SentencePieceTokenizerTest, TheSpaceInFrontIsTheConfigurationsOrTheModels) {
  const auto prefix = [](bool in_model, const std::string& config) {
    const auto metadata = Convert(
        {{"tokenizer.model", Model(2, in_model)}, {"tokenizer_config.json", config}}, 6);
    const auto flag = metadata->GetBool("tokenizer.ggml.add_space_prefix");
    return flag.ok() ? (*flag ? "true" : "false") : "absent";
  };
  EXPECT_STREQ(prefix(true, "{}"), "absent");
  EXPECT_STREQ(prefix(false, "{}"), "false");
  EXPECT_STREQ(prefix(true, R"({"add_prefix_space": false})"), "false");
  EXPECT_STREQ(prefix(false, R"({"add_prefix_space": true})"), "true");
}

TEST(SentencePieceTokenizerTest, MorePiecesThanTheEmbeddingHasRowsAreRefused) {
  const auto refused = Convert({{"tokenizer.model", Model(2, true)}}, 5);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.status().message()),
              testing::AllOf(HasSubstr("'hole'"), HasSubstr("id 5"), HasSubstr("size 5")));
}

TEST(SentencePieceTokenizerTest, WholeWordsAndCharactersAreRefused) {
  EXPECT_EQ(Convert({{"tokenizer.model", Model(3, true)}}, 6).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SentencePieceTokenizerTest, APieceThatIsNoByteIsNotTakenForOne) {
  const auto refused =
      Convert({{"tokenizer.model", absl::StrCat(Piece("<unk>", 0, 2), Piece("<0x-1>", 0, 6))}}, 8);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("piece 1 ('<0x-1>')"));
}

TEST(SentencePieceModelTest, CorruptBytesAreRefusedWithTheirOffset) {
  struct Case {
    std::string bytes;
    const char* message;
  };
  const std::string piece = Piece("a", 0);
  const Case cases[] = {
      {"", "offset 0: not a SentencePiece model: it has no pieces"},
      {piece + std::string("\x0a\x7f", 2), "expected 127 bytes, 0 are left"},
      {piece + "\xff\xff", "offset 12: not a SentencePiece model: a number that does not end"},
      {piece + std::string("\0\0", 2), "expected a field's tag"},
      {piece + "\x0b", "wire type 3"},
      {piece + "\x08\x01", "a part of the model should be a length and bytes, but is a number"},
      {Bytes(1, Bytes(1, "\xC3(")), "not UTF-8"},
      {Bytes(1, Number(1, 3)), "a piece's text should be"},
      {Bytes(1, Number(2, 3)), "a piece's score should be 4 bytes"},
      {Bytes(1, Number(3, 7)), "type is 7, expected 1 to 6"},
      {piece + Bytes(2, Number(3, 9)), "kind is 9, expected 1 to 4"},
      {piece + Bytes(3, Bytes(4, "x")), "the normalizer's flag should be a number"},
  };
  for (const Case& c : cases) {
    const auto refused = ParseSentencePieceModel(c.bytes, "tokenizer.model");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << c.message;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(c.message));
  }
}

nlohmann::json FallbackTokenizer() {
  return {{"added_tokens",
           {{{"id", 0}, {"content", "<unk>"}, {"special", true}},
            {{"id", 7}, {"content", "<|im_end|>"}, {"special", false}}}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
          {"pre_tokenizer", nullptr},
          {"decoder", {{"type", "Sequence"}, {"decoders", nlohmann::json::array()}}},
          {"model",
           {{"type", "BPE"},
            {"byte_fallback", true},
            {"vocab",
             {{"<unk>", 0}, {"<0x0A>", 1}, {"a", 2}, {"b", 3}, {"c", 4}, {"ab", 5}, {"abc", 6}}},
            {"merges", {"a b", {"ab", "c"}, {"a", "bc"}}}}}};
}

TEST(ByteFallbackTokenizerTest, ScoresFollowTheMerges) {
  const auto metadata = Convert({{"tokenizer.json", FallbackTokenizer().dump()}}, 8);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.model"), "llama");
  EXPECT_THAT(*metadata->GetInts("tokenizer.ggml.token_type"),
              ElementsAre(3, 6, 1, 1, 1, 1, 1, 3));
  EXPECT_THAT(*metadata->GetFloats("tokenizer.ggml.scores"),
              ElementsAre(-1000, -1e6f, -1e6f, -1e6f, -1e6f, 0, -1, -1000));
  EXPECT_EQ(metadata->Find("tokenizer.ggml.merges"), nullptr);
  EXPECT_EQ(metadata->Find("tokenizer.ggml.add_space_prefix"), nullptr);
}

TEST(ByteFallbackTokenizerTest, OnlySpacesNormalizersAreSupported) {
  nlohmann::json tokenizer = FallbackTokenizer();
  tokenizer["normalizer"] = {{"type", "Lowercase"}};
  const auto refused = Convert({{"tokenizer.json", tokenizer.dump()}}, 8);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              testing::AllOf(HasSubstr("Lowercase"), HasSubstr("not supported")));
  tokenizer["normalizer"] = nullptr;
  const auto without = Convert({{"tokenizer.json", tokenizer.dump()}}, 8);
  EXPECT_FALSE(*without->GetBool("tokenizer.ggml.add_space_prefix"));
}

std::string RanksOf(const std::vector<std::string>& tokens) {
  std::string text;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    absl::StrAppend(&text, absl::Base64Escape(tokens[rank]), " ", rank, "\n");
  }
  return text;
}

TEST(TiktokenTest, MergesComeBackFromRanks) {
  const auto ranks = ParseTiktokenRanks(
      RanksOf({"a", "b", "c", " ", "ab", "bc", "abc", " abc", "ca b"}), "tiktoken.model");
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  // "ca b" stays in four parts: no merge makes it.
  EXPECT_THAT(MergesOfRanks(*ranks), ElementsAre("a b", "b c", "ab c", "\u0120 abc"));
}

TEST(TiktokenTest, KimisTokensAreRanksAndReservedNames) {
  const auto metadata = Convert(
      {{"tiktoken.model", RanksOf({"a", "b", "\xff", "ab"})},
       {"tokenizer_config.json",
        R"({"add_bos_token": false,
            "added_tokens_decoder": {"5": {"content": "[EOS]", "special": true}}})"}},
      262, "deepseek2");
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_THAT(Keys(*metadata), ElementsAre("model", "pre", "tokens", "token_type", "merges",
                                           "bos_token_id", "eos_token_id", "add_bos_token"));
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.pre"), "kimi-k2");
  const std::vector<std::string>& tokens = **metadata->GetStrings("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens[2], "\u00ff");
  EXPECT_EQ(tokens[4], "<|reserved_token_4|>");
  EXPECT_EQ(tokens[5], "[EOS]");
  EXPECT_EQ(tokens[259], "<|reserved_token_259|>");
  EXPECT_EQ(tokens[260], "[PAD260]");
  const auto types = *metadata->GetInts("tokenizer.ggml.token_type");
  EXPECT_EQ(types[3], 1);
  EXPECT_EQ(types[259], 3);
  EXPECT_EQ(types[260], 5);
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.merges"), ElementsAre("a b"));
}

TEST(TiktokenTest, BrokenLinesAreRefusedByNumber) {
  for (const std::string line : {"YQ==", "YQ== x", "?? 1", "YQ== 0", "Yg== 0", "Yg== -1",
                                 "Yg== 99999999", " 1", "Yg== 1 2"}) {
    const auto refused = ParseTiktokenRanks("YQ== 0\n" + line + "\n", "tiktoken.model");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("line 2")) << line;
  }
  EXPECT_EQ(ParseTiktokenRanks("\n", "tiktoken.model").status().code(),
            absl::StatusCode::kDataLoss);
}

constexpr char kMerges[] = "#version: 0.2\na b\n\nab c\r\n";
constexpr char kVocab[] = R"({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4})";

TEST(MergesFilesTest, GiveWhatTheirTokenizerJsonWould) {
  const auto metadata = Convert(
      {{"vocab.json", kVocab},
       {"merges.txt", kMerges},
       {"added_tokens.json", R"({"<|im_end|>": 6, "<more>": 7})"},
       {"tokenizer_config.json",
        R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>",
            "added_tokens_decoder": {"5": {"content": "<|end|>", "special": true}}})"}},
      9, "qwen2");
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_THAT(Keys(*metadata), ElementsAre("model", "pre", "tokens", "token_type", "merges",
                                           "bos_token_id", "eos_token_id"));
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.pre"), "qwen2");
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "c", "ab", "abc", "<|end|>", "<|im_end|>", "<more>", "[PAD8]"));
  EXPECT_THAT(*metadata->GetInts("tokenizer.ggml.token_type"),
              ElementsAre(1, 1, 1, 1, 1, 3, 3, 4, 5));
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.merges"), ElementsAre("a b", "ab c"));
}

TEST(MergesFilesTest, SayWhatTheyLack) {
  const auto unknown = Convert({{"vocab.json", kVocab}, {"merges.txt", kMerges}}, 9, "qwen2");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("--pre-tokenizer"));
  EXPECT_EQ(Convert({{"vocab.json", kVocab}}, 9).status().code(), absl::StatusCode::kNotFound);
  for (const std::string line : {"a", "a b c"}) {
    const auto refused = ParseMergesFile("a b\n" + line + "\n", "merges.txt");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("line 2")) << line;
  }
}

// As the reference converter does, which knows the two models by their vocabularies' sizes.
TEST(TokenizerKindsTest, CodeLlamasGapEndsAndGranitesTextsBeginWithNothing) {
  const struct {
    const char* config;
    const char* architecture;
    bool end, begin;
  } cases[] = {{R"({"vocab_size": 32016})", "llama", true, false},
               {R"({"vocab_size": 32016})", "qwen2", false, false},
               {R"({"vocab_size": 49152})", "llama", false, true},
               {R"({"vocab_size": 32000})", "llama", false, false}};
  for (const auto& [config, architecture, end, begin] : cases) {
    const auto metadata = Convert(
        {{"config.json", config}, {"tokenizer.model", Model(2, true)}}, 32016, architecture);
    ASSERT_TRUE(metadata.ok()) << metadata.status();
    EXPECT_EQ(metadata->GetU32("tokenizer.ggml.eot_token_id").value_or(0), end ? 32010u : 0u);
    EXPECT_EQ(metadata->Find("tokenizer.ggml.add_bos_token") != nullptr, begin) << config;
    EXPECT_FALSE(metadata->GetBoolOr("tokenizer.ggml.add_bos_token", false).value_or(true));
  }
}

TEST(TokenizerKindsTest, AMissingTokenizerSaysWhatWasLookedFor) {
  const auto refused = Convert({}, 8);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(refused.status().message()),
              testing::AllOf(HasSubstr("tokenizer.model"), HasSubstr("tokenizer.json"),
                             HasSubstr("tiktoken.model")));
}

}  // namespace
}  // namespace odmoe
