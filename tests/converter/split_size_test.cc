// GGUF files written as shards.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/convert.h"
#include "services/core/formats/gguf_model.h"
#include "tests/support/made_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

absl::Status Convert(const ConvertOptions& options) {
  const auto plan = PlanConversion(options);
  return plan.ok() ? RunConversion(*plan, nullptr, nullptr) : plan.status();
}

std::string BytesOf(const GgufModel& model, const GgufTensor& tensor) {
  std::string bytes(tensor.bytes, '\0');
  EXPECT_EQ(
      model.ReadTensor(tensor, 0,
                       absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size())),
      absl::OkStatus());
  return bytes;
}

TEST(SplitSizeTest, ShardsHoldTheSameModelAndTellTheirPlaces) {
  TemporaryDirectory folder;
  const std::string source = MadeCheckpoint("mixtral").Write(folder);
  ASSERT_EQ(Convert({.source = source, .destination = folder / "whole.gguf"}), absl::OkStatus());
  const auto whole = GgufModel::Open(PosixFileSystem(), folder / "whole.gguf").value();
  uint64_t bytes = 0, largest = 0;
  for (const GgufTensor& tensor : whole->tensors()) {
    bytes += tensor.bytes;
    largest = std::max(largest, tensor.bytes);
  }
  const uint64_t limit = std::max(bytes / 3, largest);
  const ConvertOptions options{
      .source = source, .destination = folder / "cut.gguf", .split_max_bytes = limit};
  const auto plan = PlanConversion(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_GT(plan->outputs.size(), 1u);
  ASSERT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  const auto cut = GgufModel::Open(PosixFileSystem(), plan->outputs[0]);
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ((*cut)->shards().size(), plan->outputs.size());
  EXPECT_EQ((*cut)->metadata().entries(), whole->metadata().entries());
  ASSERT_EQ((*cut)->tensors().size(), whole->tensors().size());
  for (size_t i = 0; i < whole->tensors().size(); ++i) {
    const GgufTensor& tensor = (*cut)->tensors()[i];
    EXPECT_EQ(tensor.name, whole->tensors()[i].name);
    EXPECT_TRUE(BytesOf(**cut, tensor) == BytesOf(*whole, whole->tensors()[i])) << tensor.name;
  }
  for (size_t i = 0; i < plan->outputs.size(); ++i) {
    const GgufMetadata& keys = (*cut)->shards()[i]->metadata();
    EXPECT_EQ(keys.Find("split.no")->type, GgufType::kU16);
    EXPECT_EQ(keys.Find("split.count")->type, GgufType::kU16);
    EXPECT_EQ(keys.Find("split.tensors.count")->type, GgufType::kI32);
    EXPECT_EQ(keys.GetU32("split.no").value(), i);
    EXPECT_EQ(keys.GetU32("split.count").value(), plan->outputs.size());
    EXPECT_EQ(keys.GetU32("split.tensors.count").value(), whole->tensors().size());
    // Only the first has the model's keys.
    EXPECT_EQ(keys.entries().size(), 3 + (i == 0 ? whole->metadata().entries().size() : 0));
    uint64_t shard_bytes = 0;
    for (const GgufTensor& tensor : (*cut)->shards()[i]->tensors()) shard_bytes += tensor.bytes;
    EXPECT_LE(shard_bytes, limit);
  }
}

TEST(SplitSizeTest, AFileThatIsSmallEnoughStaysOne) {
  TemporaryDirectory folder;
  const std::string source = MadeCheckpoint("olmoe").Write(folder);
  ASSERT_EQ(Convert({.source = source, .destination = folder / "a.gguf"}), absl::OkStatus());
  ASSERT_EQ(Convert({.source = source, .destination = folder / "b.gguf",
                     .split_max_bytes = uint64_t{1} << 40}),
            absl::OkStatus());
  EXPECT_TRUE(ReadFileOrDie(folder / "a.gguf") == ReadFileOrDie(folder / "b.gguf"));
}

TEST(SplitSizeTest, IsForGgufFiles) {
  TemporaryDirectory folder;
  const std::string source = MadeCheckpoint("olmoe").Write(folder);
  EXPECT_EQ(Convert({.source = source, .destination = folder / "model", .split_max_bytes = 1000})
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SplitSizeTest, ReadsSizesInPowersOfAThousand) {
  EXPECT_EQ(ParseSplitSize("0").value(), 0u);
  EXPECT_EQ(ParseSplitSize("4096").value(), 4096u);
  EXPECT_EQ(ParseSplitSize("3K").value(), 3000u);
  EXPECT_EQ(ParseSplitSize("3M").value(), 3000000u);
  EXPECT_EQ(ParseSplitSize("50G").value(), 50000000000u);
  for (const char* wrong : {"", "K", "-1", "1.5G", "3k", "3GB", " 3", "99999999999999999999",
                            "10000000000G"}) {
    EXPECT_EQ(ParseSplitSize(wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace odmoe
