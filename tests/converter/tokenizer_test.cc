#include "converter/huggingface/tokenizer.h"

#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/status_codes.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A small tokenizer.json, written as recent libraries do.
nlohmann::json SmallTokenizer() {
  return {{"added_tokens",
           {{{"id", 4}, {"content", "<s>"}, {"special", true}},
            {{"id", 5}, {"content", "\u2581user"}, {"special", false}},
            {{"id", 6}, {"content", "<|turn|>"}, {"special", false}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}},
            {"merges", {"a b", {"a", " b"}}}}}};
}

struct Parts {
  nlohmann::json tokenizer = SmallTokenizer();
  nlohmann::json tokenizer_config = nlohmann::json::object();
  nlohmann::json config = nlohmann::json::object();
  std::vector<std::pair<std::string, std::string>> others;
  int64_t vocabulary_size = 8;
  std::string pre_tokenizer;
};

absl::StatusOr<GgufMetadata> Convert(const Parts& files) {
  TemporaryDirectory folder;
  std::filesystem::create_symlink(kCheckpoint + "/model.safetensors",
                                  folder / "model.safetensors");
  WriteFileOrDie(folder / "tokenizer.json", files.tokenizer.dump());
  WriteFileOrDie(folder / "tokenizer_config.json", files.tokenizer_config.dump());
  WriteFileOrDie(folder / "config.json", files.config.dump());
  for (const auto& [name, content] : files.others) {
    std::filesystem::create_directories(std::filesystem::path(folder / name).parent_path());
    WriteFileOrDie(folder / name, content);
  }
  const auto checkpoint = Checkpoint::Open(PosixFileSystem(), folder.path());
  if (!checkpoint.ok()) return checkpoint.status();
  GgufMetadata metadata;
  const absl::Status status = AddTokenizerKeys(
      **checkpoint,
      {.vocabulary_size = files.vocabulary_size, .pre_tokenizer = files.pre_tokenizer}, metadata);
  if (!status.ok()) return status;
  return metadata;
}

TEST(TokenizerTest, PutsTokensAtTheirIdsAndTellsTheirTypes) {
  const auto metadata = Convert({});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "ab", "[PAD3]", "<s>", " user", "<|turn|>", "[PAD7]"));
  EXPECT_THAT(*metadata->GetInts("tokenizer.ggml.token_type"),
              ElementsAre(1, 1, 1, 5, 3, 4, 3, 5));
  EXPECT_EQ(*metadata->GetString("tokenizer.ggml.pre"), "gpt-2");
}

TEST(TokenizerTest, WritesMergesOfEitherFormWithTheSpaceSpelledOut) {
  const auto metadata = Convert({});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_THAT(**metadata->GetStrings("tokenizer.ggml.merges"), ElementsAre("a b", "a \u0120b"));
}

TEST(TokenizerTest, FindsSpecialTokensByContentThenById) {
  const auto metadata = Convert(
      {.tokenizer_config = {{"bos_token", {{"content", "<s>"}}},
                            {"eos_token", "<|turn|>"},
                            {"pad_token", "not there"},
                            {"add_bos_token", true},
                            {"add_eos_token", false}},
       .config = {{"bos_token_id", 1}, {"pad_token_id", 2}, {"eos_token_id", {1, 2}}}});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(*metadata->GetU32("tokenizer.ggml.bos_token_id"), 4u);
  EXPECT_EQ(*metadata->GetU32("tokenizer.ggml.eos_token_id"), 6u);
  EXPECT_EQ(*metadata->GetU32("tokenizer.ggml.padding_token_id"), 2u);
  EXPECT_EQ(metadata->Find("tokenizer.ggml.unknown_token_id"), nullptr);
  EXPECT_TRUE(*metadata->GetBool("tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(*metadata->GetBool("tokenizer.ggml.add_eos_token"));
}

TEST(TokenizerTest, LeavesOutIdsTheModelDoesNotHave) {
  const auto metadata = Convert({.config = {{"bos_token_id", 8}, {"eos_token_id", -1}}});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->Find("tokenizer.ggml.bos_token_id"), nullptr);
  EXPECT_EQ(metadata->Find("tokenizer.ggml.eos_token_id"), nullptr);
}

TEST(TokenizerTest, ReadsFromTheTemplateWhichTokensAreAdded) {
  Parts files{.tokenizer_config = {{"bos_token", "<s>"}, {"eos_token", "<|turn|>"}}};
  files.tokenizer["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}}}};
  const auto metadata = Convert(files);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_TRUE(*metadata->GetBool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(metadata->Find("tokenizer.ggml.add_eos_token"), nullptr);
}

TEST(ChatTemplateTest, ComesFromTheFirstPlaceThatHasOne) {
  const std::vector<std::pair<std::string, std::string>> jinja = {
      {"chat_template.jinja", "from jinja"}};
  const std::vector<std::pair<std::string, std::string>> json = {
      {"chat_template.json", R"({"chat_template": "from json"})"}};
  const auto chat = [](const Parts& files) {
    return Convert(files)->GetStringOr("tokenizer.chat_template", "none").value();
  };
  EXPECT_EQ(chat({.tokenizer_config = {{"chat_template", "from config"}}, .others = jinja}),
            "from config");
  EXPECT_EQ(chat({.others = {jinja[0], json[0]}}), "from jinja");
  EXPECT_EQ(chat({.others = json}), "from json");
  EXPECT_EQ(chat({}), "none");
}

TEST(ChatTemplateTest, KeepsNamedOnesBesideTheDefault) {
  const auto metadata =
      Convert({.others = {{"chat_template.jinja", "main"},
                          {"additional_chat_templates/tool use.jinja", "tools"}}});
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(*metadata->GetString("tokenizer.chat_template"), "main");
  EXPECT_EQ(*metadata->GetString("tokenizer.chat_template.tool_use"), "tools");
  EXPECT_THAT(**metadata->GetStrings("tokenizer.chat_templates"), ElementsAre("tool_use"));
}

TEST(RecognizeTokenizerTest, ShowsAnUnknownPreTokenizerAndHowToNameOne) {
  Parts files;
  files.tokenizer["pre_tokenizer"] = {{"type", "Split"},
                                      {"pattern", {{"Regex", "[a-z]+"}}},
                                      {"behavior", "Isolated"},
                                      {"invert", false}};
  const auto refused = Convert(files);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("[a-z]+"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--pre-tokenizer"));
  files.pre_tokenizer = "qwen2";
  const auto named = Convert(files);
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ(*named->GetString("tokenizer.ggml.pre"), "qwen2");
  files.pre_tokenizer = "qwen9";
  EXPECT_EQ(Convert(files).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RecognizeTokenizerTest, TellsModelsApartByNormalizerAndDigits) {
  const auto name = [](const std::function<void(nlohmann::json&)>& edit) {
    nlohmann::json tokenizer = SmallTokenizer();
    edit(tokenizer);
    const auto pre = RecognizeTokenizerJson(tokenizer, "tokenizer.json");
    return pre.ok() ? std::string((*pre)->name) : "refused";
  };
  EXPECT_EQ(name([](auto&) {}), "gpt-2");
  EXPECT_EQ(name([](auto& t) { t["normalizer"] = {{"type", "NFC"}}; }), "olmo");
  EXPECT_EQ(name([](auto& t) {
              t["normalizer"] = {{"type", "Sequence"}, {"normalizers", nlohmann::json::array()}};
            }),
            "gpt-2");
  EXPECT_EQ(name([](auto& t) { t["normalizer"] = {{"type", "Lowercase"}}; }), "refused");
  EXPECT_EQ(name([](auto& t) { t["normalizer"] = {{"type", 7}}; }), "refused");
  EXPECT_EQ(name([](auto& t) { t["pre_tokenizer"]["add_prefix_space"] = true; }), "refused");
  EXPECT_EQ(name([](auto& t) {
              t["pre_tokenizer"] = {
                  {"type", "Sequence"},
                  {"pretokenizers",
                   {{{"type", "Digits"}, {"individual_digits", true}}, t["pre_tokenizer"]}}};
            }),
            "starcoder");
  EXPECT_EQ(name([](auto& t) { t.erase("pre_tokenizer"); }), "refused");
}

TEST(TokenizerTest, RefusesTokenizersThatAreNotByteLevelBpeOrLie) {
  struct Case {
    std::function<void(Parts&)> edit;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {[](Parts& f) { f.tokenizer["model"]["type"] = "Unigram"; }, kInvalid, "Unigram"},
      {[](Parts& f) { f.tokenizer["model"]["byte_fallback"] = true; }, kInvalid, "byte_fallback"},
      {[](Parts& f) { f.tokenizer["decoder"]["type"] = "WordPiece"; }, kInvalid, "WordPiece"},
      {[](Parts& f) { f.tokenizer["model"]["vocab"]["x"] = 8; }, kLoss, "below the model's"},
      {[](Parts& f) { f.tokenizer["model"]["vocab"]["x"] = 2; }, kLoss, "id 2 is taken"},
      {[](Parts& f) { f.tokenizer["model"]["vocab"]["x"] = -1; }, kLoss, "not a number"},
      {[](Parts& f) { f.tokenizer["model"]["vocab"]["x"] = "3"; }, kLoss, "not a number"},
      {[](Parts& f) { f.tokenizer["model"]["merges"] = {1}; }, kLoss, "'merges'"},
      {[](Parts& f) { f.tokenizer["model"]["merges"] = {{"a", "b", "c"}}; }, kLoss, "'merges'"},
      {[](Parts& f) { f.tokenizer["model"].erase("merges"); }, kLoss, "'merges'"},
      {[](Parts& f) { f.tokenizer["added_tokens"][0]["id"] = 1 << 30; }, kLoss, "'id'"},
      {[](Parts& f) { f.tokenizer["added_tokens"][0].erase("content"); }, kLoss, "'content'"},
      {[](Parts& f) { f.tokenizer = nlohmann::json::array(); }, kLoss, "should be an object"},
      {[](Parts& f) { f.tokenizer_config = 7; }, kLoss, "should be an object"},
  };
  for (const Case& c : cases) {
    Parts files;
    c.edit(files);
    const auto refused = Convert(files);
    EXPECT_EQ(refused.status().code(), c.code) << refused.status();
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace odmoe
