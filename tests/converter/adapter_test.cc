// LoRA adapters that GGUF cannot express, or that are not what they say.
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/convert.h"
#include "tests/support/made_checkpoint.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

struct Case {
  const char* name;
  const char* adapter;
  std::function<void(MadeCheckpoint&)> edit;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

auto Set(const char* key, nlohmann::json value) {
  return [key, value](MadeCheckpoint& made) { made.config[key] = value; };
}

auto Add(const char* name, std::vector<int64_t> shape) {
  return [=](MadeCheckpoint& made) { made.tensors.push_back({name, "F32", shape, {}}); };
}

const Case kCases[] = {
    {"OtherKind", "lora_llama3", Set("peft_type", "LOHA"), kInvalid,
     "'peft_type' should be \"LORA\""},
    {"Dora", "lora_llama3", Set("use_dora", true), kInvalid, "DoRA's magnitudes"},
    {"RankStabilized", "lora_llama3", Set("use_rslora", true), kInvalid, "not by its root"},
    {"AlphasOfTheirOwn", "lora_llama3", Set("alpha_pattern", {{"q_proj", 4}}), kInvalid,
     "one alpha for all"},
    {"NoAlpha", "lora_llama3", [](auto& m) { m.config.erase("lora_alpha"); }, kLoss,
     "'lora_alpha'"},
    {"InvocationWithoutTokens", "lora_llama3", Set("invocation_string", "go"), kInvalid,
     "'alora_invocation_tokens'"},
    {"WholeWeight", "lora_llama3", Add("base_model.model.lm_head.weight", {280, 64}), kInvalid,
     "Merge the adapter into its model"},
    {"HalfAPair", "lora_llama3",
     Add("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", {8, 64}), kInvalid,
     "is one half of a pair without the other"},
    {"LayerThatIsNotThere", "lora_llama3",
     [](auto& m) {
       Add("base_model.model.model.layers.7.mlp.up_proj.lora_A.weight", {8, 64})(m);
       Add("base_model.model.model.layers.7.mlp.up_proj.lora_B.weight", {96, 8})(m);
     },
     kInvalid, "which a llama model of the base model's config.json does not have"},
    {"OtherWidth", "lora_llama3",
     [](auto& m) {
       m.Find("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight")->shape = {64, 8};
     },
     kLoss,
     "is changed by [8, 64] and [64, 8], the base model's config.json gives [rank, 64] and [128, "
     "rank]: [num_attention_heads * head_dim, hidden_size]"},
    {"SomeExperts", "lora_qwen3moe",
     [](auto& m) {
       for (const char* half : {"A", "B"}) {
         const std::string name =
             std::string("base_model.model.model.layers.1.mlp.experts.3.up_proj.lora_") + half +
             ".weight";
         m.tensors.erase(m.tensors.begin() + (m.Find(name) - m.tensors.data()));
       }
     },
     kInvalid, "changes an expert of layer 1, not all of whose"},
    {"SplitKeyValue", "lora_deepseek3",
     [](auto& m) {
       Add("base_model.model.model.layers.0.self_attn.kv_b_proj.lora_A.weight", {4, 32})(m);
       Add("base_model.model.model.layers.0.self_attn.kv_b_proj.lora_B.weight", {128, 4})(m);
     },
     kInvalid, "changes kv_b_proj"},
};

class AdapterTest : public testing::TestWithParam<Case> {};

TEST_P(AdapterTest, IsRefusedWithTheReason) {
  MadeCheckpoint made(GetParam().adapter);
  GetParam().edit(made);
  TemporaryDirectory folder;
  const std::string adapter = made.WriteAdapter(folder);
  const auto plan = PlanConversion(
      {.source = adapter, .destination = folder / "x.gguf", .base_model = folder / "base"});
  EXPECT_EQ(plan.status().code(), GetParam().code) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, AdapterTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(AdapterOptionsTest, AskForTheBaseModelAndAGgufFile) {
  const MadeCheckpoint made("lora_llama3");
  TemporaryDirectory folder;
  const std::string adapter = made.WriteAdapter(folder);
  const auto refusal = [&](const ConvertOptions& options) {
    return std::string(PlanConversion(options).status().message());
  };
  EXPECT_THAT(refusal({.source = adapter, .destination = folder / "x.gguf"}), HasSubstr("--base"));
  EXPECT_THAT(refusal({.source = adapter, .destination = folder / "x",
                       .base_model = folder / "base"}),
              HasSubstr("does not end in .gguf"));
  EXPECT_THAT(refusal({.source = adapter, .destination = folder / "x.gguf",
                       .base_model = folder / "nowhere"}),
              HasSubstr("nowhere/config.json"));
  EXPECT_THAT(refusal({.source = folder / "base", .destination = folder / "x.gguf",
                       .base_model = folder / "base"}),
              HasSubstr("is none: it has no adapter_config.json"));
}

}  // namespace
}  // namespace odmoe
