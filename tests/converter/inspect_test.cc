#include "converter/inspect/inspect.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "converter/convert.h"
#include "converter/toy/toy_model.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(InspectTest, ShowsOneModelAlikeInEachOfItsForms) {
  TemporaryDirectory folder;
  for (const std::string& name : {folder / "model.gguf", folder / "model"}) {
    const auto plan = PlanConversion({kCheckpoint, name, "bf16"});
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  }
  const auto checkpoint = InspectModel(kCheckpoint);
  const auto gguf = InspectModel(folder / "model.gguf");
  const auto directory = InspectModel(folder / "model");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_EQ(checkpoint->kind, "hugging face directory");
  EXPECT_EQ(checkpoint->architecture, "DeepseekV3ForCausalLM");
  EXPECT_EQ(gguf->kind, "gguf");
  EXPECT_EQ(directory->kind, "model directory");
  EXPECT_EQ(directory->architecture, "deepseek2");
  EXPECT_EQ(gguf->parameter_count, checkpoint->parameter_count);
  EXPECT_EQ(directory->parameter_count, checkpoint->parameter_count);
  EXPECT_EQ(directory->tensor_bytes, gguf->tensor_bytes);
  EXPECT_EQ(directory->expert_bytes(), gguf->expert_bytes());
  EXPECT_EQ(gguf->expert_bytes(), 5u * 16 * 3 * 128 * 256 * 2);
  EXPECT_EQ(directory->keys.size(), gguf->keys.size());
}

TEST(InspectTest, ShortensLongArraysInTextAlone) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  const auto inspection = InspectModel(folder / "toy.gguf");
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  const std::string text = InspectionText(*inspection);
  EXPECT_THAT(text, HasSubstr("(265 elements)"));
  EXPECT_THAT(text, HasSubstr("deepseek2.expert_count"));
  EXPECT_THAT(text, HasSubstr("blk.1.ffn_gate_exps.weight"));
  EXPECT_THAT(text, Not(HasSubstr("im_end")));
  const nlohmann::json json = nlohmann::json::parse(InspectionJson(*inspection));
  EXPECT_EQ(json["metadata"]["tokenizer.ggml.tokens"].size(), 265u);
  EXPECT_EQ(json["metadata"]["deepseek2.expert_count"], 4);
  EXPECT_EQ(json["experts"][0]["count"], 4);
  EXPECT_EQ(json["kind"], "gguf");
  EXPECT_EQ(json["tensors"][0]["name"], "token_embd.weight");
  EXPECT_EQ(json["tensors"][0]["shape"], nlohmann::json({265, 64}));
}

TEST(InspectTest, ShowsASafetensorsFile) {
  const auto inspection = InspectModel(kCheckpoint + "/model.safetensors");
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_EQ(inspection->kind, "safetensors");
  EXPECT_TRUE(nlohmann::json::accept(InspectionJson(*inspection)));
}

TEST(InspectTest, ShowsAGgufFileThatCannotBeSplit) {
  TemporaryDirectory folder;
  // A header without keys or tensors.
  WriteFileOrDie(folder / "empty.gguf", std::string("GGUF\3\0\0\0", 8) + std::string(16, '\0'));
  const auto inspection = InspectModel(folder / "empty.gguf");
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_TRUE(inspection->experts.empty());
}

TEST(InspectTest, RefusesWhatIsNoModel) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "text", "hello, this is text");
  std::filesystem::create_directories(folder / "empty");
  EXPECT_EQ(InspectModel(folder / "text").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(InspectModel(folder / "empty").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(InspectModel(folder / "none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace odmoe
