// A user's own names and keys, for architectures we do not know.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "converter/huggingface/metadata_overrides.h"
#include "converter/huggingface/to_gguf.h"
#include "tests/support/made_checkpoint.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

// Qwen3-MoE's names as a map of a user's.
nlohmann::json QwenMap() {
  nlohmann::json map = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
      {"model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight"},
      {"model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight"}};
  for (const std::string part : {"q", "k", "v"}) {
    map["model.layers.{}.self_attn." + part + "_proj.weight"] = "blk.{}.attn_" + part + ".weight";
  }
  map["model.layers.{}.self_attn.o_proj.weight"] = "blk.{}.attn_output.weight";
  for (const std::string part : {"q", "k"}) {
    map["model.layers.{}.self_attn." + part + "_norm.weight"] =
        "blk.{}.attn_" + part + "_norm.weight";
  }
  for (const std::string part : {"gate", "up", "down"}) {
    map["model.layers.{}.mlp.experts.{}." + part + "_proj.weight"] =
        "blk.{}.ffn_" + part + "_exps.weight";
  }
  return map;
}

class TensorMapTest : public testing::Test {
 protected:
  absl::StatusOr<GgufPlan> Plan(const nlohmann::json& map, std::vector<std::string> metadata = {
                                                               "general.architecture=novel"}) {
    WriteFileOrDie(folder_ / "map.json", map.dump());
    return PlanGguf(PosixFileSystem(), {.folder = made_.Write(folder_),
                                        .outtype = OutType::kBF16,
                                        .tensor_map = folder_ / "map.json",
                                        .metadata = std::move(metadata)});
  }
  std::string Refusal(const nlohmann::json& map) {
    const auto plan = Plan(map);
    EXPECT_TRUE(absl::IsInvalidArgument(plan.status())) << plan.status();
    return std::string(plan.status().message());
  }

  TemporaryDirectory folder_;
  MadeCheckpoint made_{"qwen3moe"};
};

TEST_F(TensorMapTest, DoesWhatAFamilysRulesDo) {
  made_.config["architectures"] = {"NovelForCausalLM"};
  const auto plan =
      Plan(QwenMap(), {"general.architecture=novel", "novel.expert_feed_forward_length=32",
                       "novel.rope.freq_base=500000"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const nlohmann::json& expected = made_.fixture()["gguf_tensors"];
  ASSERT_EQ(plan->tensors.size(), expected.size());
  for (const nlohmann::json& row : expected) {
    const auto found = std::find_if(plan->tensors.begin(), plan->tensors.end(), [&](const auto& t) {
      return t.info.name == row[0];
    });
    ASSERT_NE(found, plan->tensors.end()) << row[0];
    EXPECT_EQ(nlohmann::json(found->info.ne), row[1]);
    EXPECT_EQ(Info(found->info.dtype).name, row[2]["bf16"][0].get<std::string>());
  }
  const GgufMetadata& metadata = plan->header.metadata;
  EXPECT_EQ(*metadata.GetString("general.architecture"), "novel");
  EXPECT_EQ(*metadata.GetU32("novel.block_count"), 2u);
  EXPECT_EQ(*metadata.GetU32("novel.expert_feed_forward_length"), 32u);
  EXPECT_EQ(*metadata.GetF32("novel.rope.freq_base"), 500000.0f);  // as the key it replaces
}

TEST_F(TensorMapTest, LeavesOutWhatIsMappedToNull) {
  nlohmann::json map = QwenMap();
  map["lm_head.weight"] = nullptr;
  const auto plan = Plan(map);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const OutputTensor& tensor : plan->tensors) EXPECT_NE(tensor.info.name, "output.weight");
}

TEST_F(TensorMapTest, RefusesMapsThatCannotWork) {
  EXPECT_THAT(Refusal({{"a", "x"}, {"b", "x"}}), HasSubstr("'b' and 'a' both become 'x'"));
  EXPECT_THAT(Refusal({{"a.{}", "x"}, {"b", 7}}),
              HasSubstr("'b' should have a GGUF name, or null"));
  EXPECT_THAT(Refusal({{"a.{}.{}", "x"}}), HasSubstr("has 2 holes {} and 'x' 0"));
  EXPECT_THAT(Refusal(nlohmann::json::array()), HasSubstr("should be an object"));
  nlohmann::json map = QwenMap();
  map.erase("model.norm.weight");
  map.erase("model.layers.{}.mlp.gate.weight");
  EXPECT_THAT(Refusal(map), HasSubstr("maps none of: model.layers.0.mlp.gate.weight, "
                                      "model.layers.1.mlp.gate.weight, model.norm.weight."));
  map = QwenMap();
  map["model.norm.weight"] = std::string(64, 'x');
  EXPECT_THAT(Refusal(map), HasSubstr("has a name of 64 bytes; GGUF allows 63"));
  map = QwenMap();
  map["model.layers.0.input_layernorm.weight"] = "first";
  EXPECT_THAT(Refusal(map), HasSubstr("both match 'model.layers.0.input_layernorm.weight'"));
  map = QwenMap();
  map["model.norm.weight"] = "blk.0.attn_norm.weight";
  EXPECT_THAT(Refusal(map), HasSubstr("both become 'blk.0.attn_norm.weight'"));
  WriteFileOrDie(folder_ / "map.json", "{");
}

TEST_F(TensorMapTest, RefusesStacksWithGaps) {
  made_.tensors.erase(
      made_.tensors.begin() +
      (made_.Find("model.layers.0.mlp.experts.2.up_proj.weight") - made_.tensors.data()));
  EXPECT_THAT(Refusal(QwenMap()), HasSubstr("is one of a stack, whose number 2 is missing"));
}

TEST_F(TensorMapTest, AsksForTheArchitecturesName) {
  made_.config["architectures"] = {"NovelForCausalLM"};
  const auto plan = Plan(QwenMap(), {});
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("--metadata general.architecture=NAME"));
}

TEST_F(TensorMapTest, OverridesKeysOfAKnownArchitecture) {
  const auto plan = PlanGguf(PosixFileSystem(), {.folder = made_.Write(folder_),
                                                 .metadata = {"qwen3moe.context_length=99"}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan->header.metadata.GetU32("qwen3moe.context_length"), 99u);
}

TEST(MetadataOverridesTest, TakesTypesByNameAndBySight) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "keys.txt", "# of mine\nfile.a = u64:5\n\nfile.b=text: with = signs\n");
  WriteFileOrDie(folder / "keys.json", R"({"json.a": "7", "json.b": 7, "json.c": ["x", "y"]})");
  const auto overrides = ReadMetadataOverrides(
      PosixFileSystem(),
      {"a=5", "b=-5", "c=1.5", "d=true", "e=text", "f=u8:255", "g=[1, 2]", "h=string:5",
       "i=https://a.b", "j=f32:3", "k=[1.5]", folder / "keys.txt", folder / "keys.json"});
  ASSERT_TRUE(overrides.ok()) << overrides.status();
  GgufMetadata metadata;
  ASSERT_EQ(ApplyMetadataOverrides(*overrides, metadata), absl::OkStatus());
  std::string got;
  for (const auto& [key, value] : metadata.entries()) {
    got += key + ":" + std::string(GgufTypeName(value.type)) + (value.is_array ? "s " : " ");
  }
  EXPECT_EQ(
      got,
      "a:u32 b:i64 c:f32 d:bool e:string f:u8 g:i32s h:string i:string j:f32 k:f32s file.a:u64 "
      "file.b:string json.a:string json.b:u32 json.c:strings ");
}

TEST(MetadataOverridesTest, RefusesWhatIsNoneByName) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "keys.txt", "a=1\nb\n");
  const auto refusal = [&](std::vector<std::string> arguments) {
    GgufMetadata metadata;
    const auto overrides = ReadMetadataOverrides(PosixFileSystem(), arguments);
    return std::string((overrides.ok() ? ApplyMetadataOverrides(*overrides, metadata)
                                       : overrides.status())
                           .message());
  };
  EXPECT_THAT(refusal({"a=u8:256"}), HasSubstr("a=256: should be an integer of type u8"));
  EXPECT_THAT(refusal({"a=bool:7x"}), HasSubstr("of type bool"));
  EXPECT_THAT(refusal({"a=[1, \"x\"]"}), HasSubstr("a list of texts or of numbers"));
  EXPECT_THAT(refusal({"a=1", "a=2"}), HasSubstr("a is set twice: to 1 and to 2"));
  EXPECT_THAT(refusal({"=1"}), HasSubstr("should be KEY=VALUE"));
  EXPECT_THAT(refusal({folder / "keys.txt"}),
              HasSubstr("keys.txt line 2: 'b' should be KEY=VALUE"));
  EXPECT_THAT(refusal({folder / "nowhere"}), HasSubstr("nowhere"));
}

}  // namespace
}  // namespace odmoe
