#include "converter/huggingface/model_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "converter/huggingface/model_id.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

TEST(ModelCardTest, ReadsTextListsAndPlainValues) {
  const auto card = ParseModelCard(
      "---\nlicense: mit\nlanguage:\n- en\n- no\ncount: 7\nready: yes\nname: 'on'\nextra:\n  a: "
      "1.5\n"
      "---\n# Title\nlicense: other\n");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(*card, nlohmann::json::parse(
                       R"({"license": "mit", "language": ["en", "no"], "count": 7, "ready": true,
                           "name": "on", "extra": {"a": 1.5}})"));
}

TEST(ModelCardTest, IsEmptyWithoutACard) {
  for (const char* text : {"", "# Title\n", "---\n---\n", "text\n---\na: b\n---\n"}) {
    const auto card = ParseModelCard(text);
    ASSERT_TRUE(card.ok()) << card.status();
    EXPECT_EQ(*card, nlohmann::json::object()) << text;
  }
}

TEST(ModelCardTest, RefusesWhatIsNoObjectOrCouldGrow) {
  for (const std::string& text :
       {std::string("---\n- a\n---\n"), std::string("---\na: &x [1]\nb: *x\n---\n"),
        "---\na: " + std::string(100, '[') + "\n---\n", std::string("---\na: 'b\n"),
        std::string("---\n? [a]\n: b\n---\n"), std::string("---\na: \xe9\n---\n")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseModelCard(text).status())) << text;
  }
}

TEST(ModelCardTest, ADamagedCardDoesNotStandInTheWay) {
  TemporaryDirectory folder;
  EXPECT_EQ(ReadModelCard(PosixFileSystem(), folder.path()), nlohmann::json::object());
  WriteFileOrDie(folder / "README.md", "---\na: 'b\n");
  EXPECT_EQ(ReadModelCard(PosixFileSystem(), folder.path()), nlohmann::json::object());
}

struct IdCase {
  const char* id;
  int64_t parameters;
  const char* parts;  // organization|basename|size|finetune|version
};

TEST(ModelIdTest, TellsThePartsOfANameAsTheReferenceConverter) {
  const IdCase cases[] = {
      {"Mistral-7B-Instruct-v0.2", 7'000'000'000, "|Mistral|7B|Instruct|v0.2"},
      {"Mixtral-8x7B-Instruct-v0.1", 0, "|Mixtral|8x7B|Instruct|v0.1"},
      {"meta-llama/Llama-2-7b-chat-hf", 0, "meta-llama|Llama-2|7B|chat-hf|"},
      {"Qwen2-57B-A14B", 57'000'000'000, "|Qwen2|57B-A14B||"},
      {"Phi-3-mini-4k-instruct", 3'800'000'000, "|Phi-3|mini|4k-instruct|"},
      {"bloom-7b1", 0, "|bloom|7.1B||"},
      {"tiny-kimi", 0, "||||"},
      {"DeepSeek-V3-0324", 0, "|DeepSeek|||V3-0324"},
      {"a model of mine", 0, "||||"},
      {"Llama-3-8B-lora", -8'000'000, "|Llama-3|8B||"},
      {"./x-1B", 0, "|x|1B||"},
  };
  for (const IdCase& c : cases) {
    const ModelIdParts parts = ParseModelId(c.id, c.parameters);
    const std::string got = parts.organization.value_or("") + "|" + parts.basename.value_or("") +
                            "|" + parts.size_label.value_or("") + "|" +
                            parts.finetune.value_or("") + "|" + parts.version.value_or("");
    EXPECT_EQ(got, c.parts) << c.id;
  }
}

}  // namespace
}  // namespace odmoe
