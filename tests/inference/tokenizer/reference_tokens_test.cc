// Real vocabularies against the tokens other implementations give.
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/core/formats/gguf_reader.h"
#include "services/core/io/file.h"
#include "services/inference/tokenizer/tokenizer.h"

namespace odmoe {
namespace {

std::string ReadTestFile(const std::string& name) {
  std::ifstream file(std::string(ODMOE_TEST_DATA) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<Tokenizer> OpenVocabulary(const std::string& name) {
  auto file = PosixFileSystem().OpenForRead(std::string(ODMOE_TEST_DATA) + "/vocab/ggml-vocab-" +
                                            name + ".gguf");
  if (!file.ok()) {
    ADD_FAILURE() << file.status();
    return nullptr;
  }
  auto reader = GgufReader::Open(*std::move(file));
  if (!reader.ok()) {
    ADD_FAILURE() << reader.status();
    return nullptr;
  }
  auto tokenizer = Tokenizer::Create((*reader)->metadata());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class VocabularyFileTest : public testing::TestWithParam<std::string> {};

TEST_P(VocabularyFileTest, EveryTextGivesTheExpectedTokensAndComesBack) {
  const auto tokenizer = OpenVocabulary(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::string stem = "vocab/ggml-vocab-" + GetParam() + ".gguf";
  const std::vector<std::string> texts =
      absl::StrSplit(ReadTestFile(stem + ".inp"), "\n__ggml_vocab_test__\n");
  std::vector<std::string> expected_lines = absl::StrSplit(ReadTestFile(stem + ".out"), '\n');
  while (expected_lines.size() > texts.size() && expected_lines.back().empty()) {
    expected_lines.pop_back();
  }
  ASSERT_EQ(expected_lines.size(), texts.size());
  ASSERT_GT(texts.size(), 40u);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<TokenId> expected;
    for (absl::string_view word : absl::StrSplit(expected_lines[i], ' ', absl::SkipEmpty())) {
      expected.push_back(0);
      ASSERT_TRUE(absl::SimpleAtoi(word, &expected.back())) << word;
    }
    const auto tokens =
        tokenizer->Encode(texts[i], {.add_special = false, .parse_special = false});
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, expected) << "text " << i << ": " << texts[i];
    EXPECT_EQ(*tokenizer->Decode(*tokens), texts[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, VocabularyFileTest,
                         testing::Values("gpt-2", "deepseek-llm", "llama-spm"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{"-", "_"}});
                         });

// The keys that converting tests/data/tiny-kimi/tokenizer.json gives.
GgufMetadata TinyKimiMetadata() {
  const auto json = nlohmann::json::parse(ReadTestFile("tiny-kimi/tokenizer.json"));
  std::vector<std::string> tokens(2048);
  std::vector<int64_t> types(2048, static_cast<int64_t>(TokenType::kNormal));
  for (const auto& [token, id] : json["model"]["vocab"].items()) tokens.at(id) = token;
  for (const auto& added : json["added_tokens"]) {
    tokens.at(added["id"]) = added["content"];
    types.at(added["id"]) = static_cast<int64_t>(TokenType::kControl);
  }
  std::vector<std::string> merges;
  for (const auto& pair : json["model"]["merges"]) {
    merges.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  }
  GgufMetadata metadata;
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String("qwen2"));
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(tokens));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(types));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(merges));
  metadata.Set("tokenizer.ggml.eos_token_id", GgufValue::U32(2045));
  return metadata;
}

class TinyKimiTest : public testing::TestWithParam<std::string> {};

TEST_P(TinyKimiTest, ReferenceTextGivesItsTokens) {
  const auto tokenizer = Tokenizer::Create(TinyKimiMetadata());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto reference =
      nlohmann::json::parse(ReadTestFile("tiny-kimi-reference/" + GetParam() + ".json"));
  const std::string text = reference["text"];
  const auto tokens = (*tokenizer)->Encode(text, {.add_special = false, .parse_special = false});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(*tokens, reference["tokens"].get<std::vector<TokenId>>());
  EXPECT_EQ(*(*tokenizer)->Decode(*tokens), text);
  if (reference.contains("greedy")) {
    EXPECT_EQ(*(*tokenizer)->Decode(reference["greedy"].get<std::vector<TokenId>>()),
              reference["greedy_text"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(References, TinyKimiTest,
                         testing::Values("passage-one", "passage-two", "prompt-dialogue",
                                         "prompt-short", "prompt-unicode"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[name.find('-')] = '_';
                           return name;
                         });

}  // namespace
}  // namespace odmoe
