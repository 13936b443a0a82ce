// What the converter says to checkpoints it cannot convert: names, numbers, and what to do.
#include <cmath>
#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/huggingface/to_gguf.h"
#include "converter/huggingface/weight_rows.h"
#include "tests/support/made_checkpoint.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kMissing = absl::StatusCode::kNotFound;
constexpr auto kUnknown = absl::StatusCode::kUnimplemented;

struct Case {
  const char* name;
  const char* checkpoint;
  std::function<void(MadeCheckpoint&)> edit;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

void Remove(MadeCheckpoint& made, const std::string& name) {
  made.tensors.erase(made.tensors.begin() + (made.Find(name) - made.tensors.data()));
}

auto Set(const char* key, nlohmann::json value) {
  return [key, value](MadeCheckpoint& made) { made.config[key] = value; };
}

// The settings of pack-quantized weights of kimi_k25.
nlohmann::json& Packs(MadeCheckpoint& made) {
  return made.config["text_config"]["quantization_config"];
}
nlohmann::json& PackWeights(MadeCheckpoint& made) {
  return Packs(made)["config_groups"]["group_0"]["weights"];
}

const char kPack[] = "language_model.model.layers.1.mlp.experts.0.up_proj.weight";

const Case kCases[] = {
    {"Qwen3WithoutNormedWeights", "qwen3moe", Set("norm_topk_prob", false), kInvalid,
     "'norm_topk_prob' should be true and is false: GGUF's qwen3moe makes"},
    {"Qwen3ThatDoesNotSay", "qwen3moe", [](auto& m) { m.config.erase("norm_topk_prob"); }, kInvalid,
     "'norm_topk_prob' is missing, which means false"},
    {"Qwen2WithNormedWeights", "qwen2moe", Set("norm_topk_prob", true), kInvalid,
     "'norm_topk_prob' should be false and is true"},
    {"OlmoeWithNormedWeights", "olmoe", Set("norm_topk_prob", true), kInvalid, "olmoe does not"},
    {"OlmoeThatClips", "olmoe", Set("clip_qkv", 8.0), kInvalid, "'clip_qkv' should be null"},
    {"QwenWithDenseLayers", "qwen2moe", Set("mlp_only_layers", {0}), kInvalid,
     "'mlp_only_layers' should be [] and is [0]: GGUF's qwen2moe has experts in every layer"},
    {"QwenWithSparseSteps", "qwen3moe", Set("decoder_sparse_step", 2), kInvalid,
     "'decoder_sparse_step' should be 1"},
    {"OtherActivation", "llama2", Set("hidden_act", "gelu"), kInvalid, "'hidden_act'"},
    {"NoHead", "mistral", [](auto& m) { Remove(m, "lm_head.weight"); }, kMissing,
     "\"tie_word_embeddings\": true"},
    {"TiedHeadThatIsMissing", "mistral",
     [](auto& m) {
       Remove(m, "lm_head.weight");
       m.config["tie_word_embeddings"] = true;
     },
     kOk, ""},
    {"WrongHeadWidth", "qwen3", Set("head_dim", 16), kLoss,
     "k_norm.weight' has shape [32], config.json gives [16]: [head_dim]"},
    {"NoRouter", "mixtral",
     [](auto& m) { Remove(m, "model.layers.1.block_sparse_moe.gate.weight"); }, kMissing,
     "1 tensors are missing, the first 'model.layers.1.block_sparse_moe.gate.weight' (nearest "
     "found: 'model.layers.0.block_sparse_moe.gate.weight')"},
    {"HalfOfFusedExperts", "qwen3moe_fused",
     [](auto& m) { Remove(m, "model.layers.1.mlp.experts.down_proj"); }, kMissing,
     "'model.layers.1.mlp.experts.down_proj'"},
    {"ExpertsTwice", "qwen3moe_fused",
     [](auto& m) {
       m.tensors.push_back({"model.layers.0.mlp.experts.0.up_proj.weight", "BF16", {32, 64}, {}});
     },
     kInvalid, "experts.0.up_proj.weight' has no place"},
    {"OddHeads", "llama2", Set("num_key_value_heads", 3), kInvalid,
     "'num_attention_heads' should be a multiple of num_key_value_heads"},
    {"Fp8WithoutScale", "qwen3moe_fp8",
     [](auto& m) { Remove(m, "model.layers.0.self_attn.q_proj.weight_scale_inv"); }, kLoss,
     "is F8_E4M3 and has no 'model.layers.0.self_attn.q_proj.weight_scale_inv'"},
    {"Fp8WithTooFewScales", "deepseek3_fp8",
     [](auto& m) { m.config["quantization_config"]["weight_block_size"] = {8, 16}; }, kLoss,
     "scales, where"},
    {"Fp8WithoutAConfig", "qwen3moe_fp8",
     [](auto& m) { m.config.erase("quantization_config"); }, kUnknown, "is F8_E4M3; only BF16"},
    {"Fp8InBlocksOfNone", "qwen3moe_fp8",
     [](auto& m) { m.config["quantization_config"]["weight_block_size"] = {0, 128}; }, kLoss,
     "'weight_block_size' should be two sizes"},
    {"Gptq", "mistral",
     Set("quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}), kUnknown,
     "quant_method \"gptq\"); known: fp8"},
    {"PacksOfEightBits", "kimi_k25", [](auto& m) { PackWeights(m)["num_bits"] = 8; }, kUnknown,
     "with other than 4 bits"},
    {"PacksWithZeroPoints", "kimi_k25", [](auto& m) { PackWeights(m)["symmetric"] = false; },
     kUnknown, "with zero points"},
    {"PacksByChannel", "kimi_k25", [](auto& m) { PackWeights(m)["strategy"] = "channel"; },
     kUnknown, "by channel"},
    {"PacksOfOtherFormat", "kimi_k25", [](auto& m) { Packs(m)["format"] = "marlin-24"; }, kUnknown,
     "in the format marlin-24; known: fp8"},
    {"PacksInTwoGroups", "kimi_k25",
     [](auto& m) { Packs(m)["config_groups"]["group_1"] = Packs(m)["config_groups"]["group_0"]; },
     kUnknown, "other than one config group"},
    {"PackWithoutShape", "kimi_k25",
     [](auto& m) { Remove(m, kPack + std::string("_shape")); }, kLoss, "has no 'model.layers.1"},
    {"PackOfAnotherShape", "kimi_k25",
     [](auto& m) { m.Find(kPack + std::string("_shape"))->values = {32, 96}; }, kLoss,
     "is I32 [32, 8], where [32, 96] in int4 is I32 [32, 12]"},
    {"PackOfNegativeShape", "kimi_k25",
     [](auto& m) { m.Find(kPack + std::string("_shape"))->values = {-32, 64}; }, kLoss,
     "has -32 where a size should be"},
};

class RefusalTest : public testing::TestWithParam<Case> {};

TEST_P(RefusalTest, SaysWhatIsWrong) {
  MadeCheckpoint made(GetParam().checkpoint);
  GetParam().edit(made);
  TemporaryDirectory folder;
  const auto plan = PlanGguf(PosixFileSystem(), {.folder = made.Write(folder)});
  EXPECT_EQ(plan.status().code(), GetParam().code) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, RefusalTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CheckpointRefusalTest, PicklesAreNotOpened) {
  const MadeCheckpoint made("mistral");
  TemporaryDirectory folder;
  const auto plan = PlanGguf(PosixFileSystem(),
                             {.folder = made.Write(folder, "pytorch_model-00001-of-00002.bin")});
  EXPECT_EQ(plan.status().code(), kInvalid);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("safe_serialization=True"));
}

TEST(WeightRowsTest, DecodesE4M3) {
  EXPECT_EQ(E4M3ToF32(0x00), 0.0f);
  EXPECT_EQ(E4M3ToF32(0x01), 0x1p-9f);   // smallest
  EXPECT_EQ(E4M3ToF32(0x08), 0x1p-6f);   // smallest normal
  EXPECT_EQ(E4M3ToF32(0x38), 1.0f);
  EXPECT_EQ(E4M3ToF32(0x7e), 448.0f);    // largest
  EXPECT_EQ(E4M3ToF32(0xfe), -448.0f);
  EXPECT_TRUE(std::isnan(E4M3ToF32(0x7f)));
}

}  // namespace
}  // namespace odmoe
