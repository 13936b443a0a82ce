// The vocabulary without weights, and padded.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/convert.h"
#include "services/core/formats/gguf_reader.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

constexpr size_t kVocabulary = 2048;

absl::StatusOr<std::unique_ptr<GgufReader>> Convert(ConvertOptions options) {
  const auto plan = PlanConversion(options);
  if (!plan.ok()) return plan.status();
  const absl::Status status = RunConversion(*plan, nullptr, [](const ConvertProgress&) {});
  if (!status.ok()) return status;
  auto file = PosixFileSystem().OpenForRead(options.destination);
  if (!file.ok()) return file.status();
  return GgufReader::Open(*std::move(file));
}

std::vector<std::byte> Data(const GgufReader& reader, const std::string& name) {
  for (const GgufTensor& tensor : reader.tensors()) {
    if (tensor.name != name) continue;
    std::vector<std::byte> bytes(tensor.bytes);
    EXPECT_TRUE(
        reader.file().ReadAt(reader.data_offset() + tensor.offset, absl::MakeSpan(bytes)).ok());
    return bytes;
  }
  ADD_FAILURE() << "no " << name;
  return {};
}

TEST(VocabularyOnlyTest, HasTheKeysAndNoTensorsAndNeedsNoWeights) {
  TemporaryDirectory folder;
  const auto whole = Convert({.source = kCheckpoint, .destination = folder / "whole.gguf"});
  ASSERT_TRUE(whole.ok()) << whole.status();
  std::filesystem::create_directory(folder / "model");
  for (const std::string name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(kCheckpoint + "/" + name, folder / ("model/" + name));
  }
  for (const std::string& source : {kCheckpoint, folder / "model"}) {
    const auto alone = Convert(
        {.source = source, .destination = folder / "alone.gguf", .vocab_only = true});
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_TRUE((*alone)->tensors().empty());
    for (const std::string key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges",
                                  "tokenizer.ggml.token_type", "general.architecture"}) {
      EXPECT_EQ(*(*alone)->metadata().Find(key), *(*whole)->metadata().Find(key)) << key;
    }
    EXPECT_EQ((*alone)->metadata().Find("general.size_label"), nullptr);
    std::filesystem::remove(folder / "alone.gguf");
  }
}

TEST(VocabularyOnlyTest, IsAGgufFileFromHuggingFace) {
  TemporaryDirectory folder;
  const auto directory = Convert(
      {.source = kCheckpoint, .destination = folder / "model", .vocab_only = true});
  EXPECT_EQ(directory.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(directory.status().message()), HasSubstr(".gguf"));
  const auto gguf = PlanConversion({.source = ODMOE_TEST_DATA "/vocab/ggml-vocab-gpt-2.gguf",
                                    .destination = folder / "model",
                                    .pad_vocab = 64});
  EXPECT_EQ(gguf.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PadVocabularyTest, TokensEmbeddingAndHeadGrowTogetherWithZeros) {
  TemporaryDirectory folder;
  const auto plain = Convert({.source = kCheckpoint, .destination = folder / "plain.gguf"});
  const auto padded = Convert(
      {.source = kCheckpoint, .destination = folder / "padded.gguf", .pad_vocab = 1000});
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(padded.ok()) << padded.status();
  const std::vector<std::string>& tokens =
      **(*padded)->metadata().GetStrings("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 3000u);
  EXPECT_EQ(tokens[2999], "[PAD2999]");
  EXPECT_EQ(*(*padded)->metadata().GetU32("deepseek2.vocab_size"), 3000u);
  for (const std::string name : {"token_embd.weight", "output.weight"}) {
    const std::vector<std::byte> before = Data(**plain, name), after = Data(**padded, name);
    ASSERT_EQ(after.size(), before.size() / kVocabulary * 3000) << name;
    EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin())) << name;
    EXPECT_TRUE(std::all_of(after.begin() + static_cast<int64_t>(before.size()), after.end(),
                            [](std::byte byte) { return byte == std::byte{0}; }))
        << name;
  }
}

TEST(PadVocabularyTest, AMultipleThatFitsChangesNothing) {
  TemporaryDirectory folder;
  const auto padded = Convert(
      {.source = kCheckpoint, .destination = folder / "padded.gguf", .pad_vocab = 64});
  ASSERT_TRUE(padded.ok()) << padded.status();
  EXPECT_EQ((*padded)->metadata().GetStrings("tokenizer.ggml.tokens").value()->size(), kVocabulary);
  EXPECT_EQ(PlanConversion({.source = kCheckpoint,
                            .destination = folder / "other.gguf",
                            .pad_vocab = -1})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace odmoe
