#include "converter/describe_plan.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/converter/gguf_maker.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/made_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

TEST(DescribePlanTest, TellsEachTensorsFormatsAndTheTotals) {
  TemporaryDirectory folder;
  const auto plan = PlanConversion({.source = kCheckpoint,
                                    .destination = folder / "k.gguf",
                                    .outtype = "q8_0",
                                    .concurrency = 2});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlanDescription description = DescribePlan(*plan);
  uint64_t bytes = 0;
  bool found = false;
  for (const PlannedTensor& tensor : plan->tensors) {
    bytes += tensor.bytes;
    if (tensor.name != "blk.1.ffn_up_exps.weight") continue;
    found = true;
    EXPECT_EQ(tensor.source_format, "bf16");
    EXPECT_EQ(tensor.format, "q8_0");
    EXPECT_EQ(tensor.shape.size(), 3u);
  }
  EXPECT_TRUE(found);
  EXPECT_GT(bytes, uint64_t{11} << 20);  // 10.9 M numbers in blocks of 34 bytes for 32
  EXPECT_EQ(description.data_bytes, bytes);
  uint64_t summed = 0;
  std::vector<std::string> formats;
  for (const FormatTotal& total : description.totals) {
    formats.push_back(total.format);
    summed += total.bytes;
  }
  EXPECT_THAT(formats, testing::UnorderedElementsAre("f32", "q8_0"));
  EXPECT_EQ(summed, bytes);
  EXPECT_GE(description.totals[0].bytes, description.totals[1].bytes);
  EXPECT_EQ(description.disk_bytes, plan->disk_bytes);
  EXPECT_GT(description.memory_bytes, 0u);
  EXPECT_LT(description.memory_bytes, uint64_t{512} << 20);
  EXPECT_GT(description.time.encode_bytes_per_second, 0u);
  EXPECT_GE(description.time.seconds,
            double(bytes) / double(description.time.disk_bytes_per_second));
  EXPECT_THAT(PlanText(*plan, description), HasSubstr("blk.1.ffn_up_exps.weight"));
  EXPECT_FALSE(std::filesystem::exists(folder / "k.gguf"));
}

TEST(DescribePlanTest, SaysWhatReadersDoOtherwise) {
  TemporaryDirectory folder;
  const auto plan = PlanConversion({.source = MadeCheckpoint("deepseek2").Write(folder),
                                    .destination = folder / "out.gguf"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(PlanText(*plan, DescribePlan(*plan)),
              HasSubstr("note          the checkpoint ranks"));
  const auto json = nlohmann::json::parse(PlanJson(*plan, DescribePlan(*plan)));
  EXPECT_THAT(json["note"].get<std::string>(), HasSubstr("group_limited_greedy"));
  TemporaryDirectory other;
  const auto plain = PlanConversion({.source = MadeCheckpoint("deepseek2_lite").Write(other),
                                     .destination = other / "out.gguf"});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->note, "");
}

TEST(DescribePlanTest, ASplitCopiesAndEncodesNothing) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "in.gguf", MakeGguf({}));
  const auto plan = PlanConversion({.source = folder / "in.gguf", .destination = folder / "out"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlanDescription description = DescribePlan(*plan);
  EXPECT_EQ(description.time.encode_bytes_per_second, 0u);
  const auto json = nlohmann::json::parse(PlanJson(*plan, description));
  EXPECT_EQ(json["steps"], nlohmann::json({"split"}));
  EXPECT_EQ(json["tensors"].size(), plan->tensors.size());
  EXPECT_EQ(json["data_bytes"], description.data_bytes);
  EXPECT_GT(json["disk_bytes"], description.data_bytes);
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

}  // namespace
}  // namespace odmoe
