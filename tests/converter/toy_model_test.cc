#include "converter/toy/toy_model.h"

#include <filesystem>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/split/split.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/pre_tokenizers.h"
#include "tests/converter/open_gguf.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

TEST(ToyModelTest, GivesTheSameBytesForASeedAndOthersForAnother) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({.seed = 7}, folder / "a.gguf"), absl::OkStatus());
  ASSERT_EQ(WriteToyModel({.seed = 7}, folder / "b.gguf"), absl::OkStatus());
  ASSERT_EQ(WriteToyModel({.seed = 8}, folder / "c.gguf"), absl::OkStatus());
  EXPECT_EQ(ReadFileOrDie(folder / "a.gguf"), ReadFileOrDie(folder / "b.gguf"));
  EXPECT_NE(ReadFileOrDie(folder / "a.gguf"), ReadFileOrDie(folder / "c.gguf"));
}

TEST(ToyModelTest, HasTheLayersExpertsAndWidthsAskedFor) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({.layers = 3, .experts = 5, .top_k = 2, .dim = 96, .ffn_dim = 32,
                           .outtype = OutType::kQ8_0},
                          folder / "toy.gguf"),
            absl::OkStatus());
  const auto reader = OpenGguf(folder / "toy.gguf");
  EXPECT_EQ(*reader->metadata().GetU32("deepseek2.block_count"), 3u);
  EXPECT_EQ(*reader->metadata().GetU32("deepseek2.expert_used_count"), 2u);
  const auto plan = PlanSplit(*reader);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->layers.size(), 2u);
  EXPECT_EQ(plan->layers[0].layer, 1);
  EXPECT_EQ(plan->layers[0].expert_count, 5);
  EXPECT_EQ(plan->layers[0].layout.w1.columns, 96);
  EXPECT_EQ(plan->layers[0].layout.w1.rows, 32);
  EXPECT_EQ(plan->layers[0].layout.w1.dtype, DType::kQ8_0);
}

TEST(ToyModelTest, AskedToStopItLeavesNothing) {
  TemporaryDirectory folder;
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_TRUE(absl::IsCancelled(
      WriteToyModel({.cancellation = &cancellation}, folder / "toy.gguf")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ToyModelTest, HasATokenForEveryByteAndAKnownPreTokenizer) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  const auto reader = OpenGguf(folder / "toy.gguf");
  const std::vector<std::string>& tokens = **reader->metadata().GetStrings("tokenizer.ggml.tokens");
  EXPECT_EQ(std::set<std::string>(tokens.begin(), tokens.end()).size(), tokens.size());
  EXPECT_EQ(tokens[0], "\u0100");
  EXPECT_EQ(tokens[' '], "\u0120");
  EXPECT_EQ(tokens['A'], "A");
  EXPECT_EQ(tokens[0x7f], "\u0121");
  EXPECT_EQ(tokens[0xff], "\u00ff");
  EXPECT_EQ(static_cast<int64_t>(tokens.size()), reader->Find("token_embd.weight")->ne[1]);
  EXPECT_NE(FindPreTokenizer(*reader->metadata().GetString("tokenizer.ggml.pre")), nullptr);
}

TEST(ToyModelTest, RefusesOptionsOutOfRange) {
  TemporaryDirectory folder;
  const auto refusal = [&](const ToyOptions& options) {
    const absl::Status status = WriteToyModel(options, folder / "toy.gguf");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({.layers = 1}), HasSubstr("layers should be 2 to 1024, got 1"));
  EXPECT_THAT(refusal({.experts = 0}), HasSubstr("experts"));
  EXPECT_THAT(refusal({.experts = 4, .top_k = 5}), HasSubstr("top-k should be 1 to 4"));
  EXPECT_THAT(refusal({.dim = -1}), HasSubstr("dim"));
  EXPECT_THAT(refusal({.ffn_dim = 1 << 30}), HasSubstr("ffn-dim"));
  EXPECT_THAT(refusal({.outtype = OutType::kAuto}), HasSubstr("outtype"));
}

}  // namespace
}  // namespace odmoe
