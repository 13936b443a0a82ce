// Checkpoints that are sharded, incomplete or hostile. Each is tiny-kimi with something changed.
#include "converter/huggingface/checkpoint.h"

#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "converter/convert.h"
#include "converter/huggingface/to_gguf.h"
#include "services/core/formats/gguf_reader.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/status_codes.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

// A copy whose JSON files can be edited; the weights are linked to.
class Copy {
 public:
  Copy() {
    for (const auto& entry : std::filesystem::directory_iterator(kCheckpoint)) {
      const std::string name = entry.path().filename();
      if (name == "model.safetensors") {
        std::filesystem::create_symlink(entry.path(), folder_ / name);
      } else {
        WriteFileOrDie(folder_ / name, ReadFileOrDie(entry.path()));
      }
    }
  }

  void Edit(const std::string& name, const std::function<void(nlohmann::json&)>& edit) {
    nlohmann::json json = nlohmann::json::parse(ReadFileOrDie(folder_ / name));
    edit(json);
    WriteFileOrDie(folder_ / name, json.dump());
  }

  // Splits the weights into two files with an index; returns the index for editing.
  nlohmann::json Shard() {
    const auto whole = Checkpoint::Open(PosixFileSystem(), kCheckpoint).value();
    const size_t half = whole->tensors().size() / 2;
    nlohmann::json index;
    for (size_t part = 0; part < 2; ++part) {
      const std::string name = "model-0000" + std::to_string(part + 1) + "-of-00002.safetensors";
      std::vector<SafetensorsTensor> tensors;
      std::string data;
      for (size_t i = part * half; i < (part == 0 ? half : whole->tensors().size()); ++i) {
        const CheckpointTensor& tensor = whole->tensors()[i];
        std::string bytes(tensor.stored->bytes, '\0');
        EXPECT_EQ(tensor.file->ReadTensor(
                      *tensor.stored, 0,
                      absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size())),
                  absl::OkStatus());
        tensors.push_back(*tensor.stored);
        data += bytes;
        index["weight_map"][tensor.name] = name;
      }
      WriteFileOrDie(folder_ / name, EncodeSafetensorsHeader(tensors, {}, 8).value() + data);
    }
    std::filesystem::remove(folder_ / "model.safetensors");
    return index;
  }

  void WriteIndex(const nlohmann::json& index) {
    WriteFileOrDie(folder_ / "model.safetensors.index.json", index.dump());
  }

  absl::StatusOr<GgufPlan> Plan() const {
    return PlanGguf(PosixFileSystem(), {.folder = folder_.path()});
  }
  const TemporaryDirectory& folder() const { return folder_; }

 private:
  TemporaryDirectory folder_;
};

std::string Convert(const std::string& source, const std::string& destination) {
  const auto plan = PlanConversion({source, destination, "bf16"});
  EXPECT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  return ReadFileOrDie(destination);
}

TEST(CheckpointTest, ReadsShardsWithAnIndexAndWithoutAsOneFile) {
  Copy copy;
  const nlohmann::json index = copy.Shard();
  const std::string without = Convert(copy.folder().path(), copy.folder() / "a.gguf");
  copy.WriteIndex(index);
  EXPECT_TRUE(Convert(copy.folder().path(), copy.folder() / "b.gguf") == without);
  // Only the name, which is the folder's, tells it from the whole one.
  Convert(kCheckpoint, copy.folder() / "c.gguf");
  const auto sharded = GgufReader::Open(*PosixFileSystem().OpenForRead(copy.folder() / "b.gguf"));
  const auto whole = GgufReader::Open(*PosixFileSystem().OpenForRead(copy.folder() / "c.gguf"));
  ASSERT_EQ((*sharded)->tensors().size(), (*whole)->tensors().size());
  for (size_t i = 0; i < (*whole)->tensors().size(); ++i) {
    EXPECT_EQ((*sharded)->tensors()[i].name, (*whole)->tensors()[i].name);
    EXPECT_EQ((*sharded)->tensors()[i].offset, (*whole)->tensors()[i].offset);
  }
}

TEST(CheckpointTest, RefusesAnIndexThatLeadsOutOrDoesNotMatchTheParts) {
  struct Case {
    std::function<void(nlohmann::json&)> edit;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {[](nlohmann::json& map) { map["model.norm.weight"] = "../model.safetensors"; },
       absl::StatusCode::kInvalidArgument, "a safetensors file in this folder"},
      {[](nlohmann::json& map) { map["model.norm.weight"] = "/etc/passwd"; },
       absl::StatusCode::kInvalidArgument, "a safetensors file in this folder"},
      {[](nlohmann::json& map) { map["model.norm.weight"] = 7; },
       absl::StatusCode::kInvalidArgument, "a safetensors file in this folder"},
      {[](nlohmann::json& map) { map["extra.weight"] = "model-00003-of-00003.safetensors"; },
       absl::StatusCode::kNotFound, "model-00003-of-00003.safetensors"},
      {[](nlohmann::json& map) { map["model.norm.weight"] = "model-00001-of-00002.safetensors"; },
       absl::StatusCode::kDataLoss, "says it is in model-00001-of-00002.safetensors"},
      {[](nlohmann::json& map) { map["extra.weight"] = "model-00001-of-00002.safetensors"; },
       absl::StatusCode::kDataLoss, "'extra.weight' is missing"},
      {[](nlohmann::json& map) { map.erase("model.norm.weight"); }, absl::StatusCode::kDataLoss,
       "does not know it"},
  };
  Copy copy;
  const nlohmann::json index = copy.Shard();
  for (const Case& c : cases) {
    nlohmann::json edited = index;
    c.edit(edited["weight_map"]);
    copy.WriteIndex(edited);
    const auto opened = Checkpoint::Open(PosixFileSystem(), copy.folder().path());
    EXPECT_EQ(opened.status().code(), c.code) << opened.status();
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(c.message));
  }
}

struct ConfigCase {
  const char* name;
  std::function<void(nlohmann::json&)> edit;
  absl::StatusCode code;
  const char* message;
};

void PrintTo(const ConfigCase& c, std::ostream* out) { *out << c.name; }

const ConfigCase kConfigs[] = {
    {"OtherArchitecture", [](auto& c) { c["architectures"] = {"FalconForCausalLM"}; }, kInvalid,
     "FalconForCausalLM is not known; known: BitNetForCausalLM"},
    {"NoArchitecture", [](auto& c) { c.erase("architectures"); }, kInvalid, "architecture none"},
    {"ArchitectureOfAnotherType", [](auto& c) { c["architectures"] = 7; }, kInvalid, "none"},
    {"SettingMissing", [](auto& c) { c.erase("kv_lora_rank"); }, kInvalid, "'kv_lora_rank'"},
    {"SettingNegative", [](auto& c) { c["hidden_size"] = -1; }, kInvalid, "'hidden_size'"},
    {"SettingHuge", [](auto& c) { c["vocab_size"] = 1ull << 63; }, kInvalid, "'vocab_size'"},
    {"SettingText", [](auto& c) { c["num_hidden_layers"] = "6"; }, kInvalid, "'num_hidden_layers'"},
    {"MoreExpertsUsedThanThere", [](auto& c) { c["num_experts_per_tok"] = 17; }, kInvalid,
     "at most n_routed_experts"},
    {"MoreDenseLayersThanLayers", [](auto& c) { c["first_k_dense_replace"] = 7; }, kInvalid,
     "at most num_hidden_layers"},
    {"SparseExpertLayers", [](auto& c) { c["moe_layer_freq"] = 2; }, kInvalid, "moe_layer_freq"},
    {"OtherScoring", [](auto& c) { c["scoring_func"] = "tanh"; }, kInvalid, "'sigmoid' or"},
    {"OtherRope", [](auto& c) { c["rope_scaling"]["type"] = "spiral"; }, kInvalid, "or 'llama3'"},
    {"RopeWithoutFactor", [](auto& c) { c["rope_scaling"].erase("factor"); }, kInvalid, "'factor'"},
    {"QuantizedCheckpoint", [](auto& c) { c["quantization_config"]["quant_method"] = "gptq"; },
     absl::StatusCode::kUnimplemented, "\"gptq\"); known: fp8"},
    {"WrongWidth", [](auto& c) { c["hidden_size"] = 128; }, kLoss,
     "config.json gives [2048, 128]: [vocab_size, hidden_size]"},
    {"WrongHeads", [](auto& c) { c["num_attention_heads"] = 4; }, kLoss, "kv_b_proj"},
    {"MoreLayersThanWeights", [](auto& c) { c["num_hidden_layers"] = 7; },
     absl::StatusCode::kNotFound,
     "the first 'model.layers.6.input_layernorm.weight' (nearest found: "
     "'model.layers.0.input_layernorm.weight')"},
    {"MoreExpertsThanWeights", [](auto& c) { c["n_routed_experts"] = 17; },
     absl::StatusCode::kNotFound, "experts.16.down_proj.weight'"},
    {"FewerExpertsThanWeights", [](auto& c) { c["n_routed_experts"] = 15; }, kInvalid,
     "mlp.experts.15.down_proj.weight' has no place"},
    {"BiasWithoutItsMethod", [](auto& c) { c["topk_method"] = "greedy"; }, kInvalid,
     "e_score_correction_bias' has no place"},
    {"HeadOfATiedModelIsLeftOut", [](auto& c) { c["tie_word_embeddings"] = true; },
     absl::StatusCode::kOk, ""},
    {"LayersPastTheLastAreLeftOut", [](auto& c) { c["num_hidden_layers"] = 5; },
     absl::StatusCode::kOk, ""},
    {"SettingsOfAMultimodalModel",
     [](auto& c) {
       nlohmann::json text = c;
       text.erase("architectures");
       c = {{"architectures", {"KimiK25ForConditionalGeneration"}}, {"text_config", text}};
     },
     absl::StatusCode::kOk, ""},
};

class ConfigTest : public testing::TestWithParam<ConfigCase> {};

TEST_P(ConfigTest, IsTakenOrRefusedByName) {
  Copy copy;
  copy.Edit("config.json", GetParam().edit);
  const auto plan = copy.Plan();
  EXPECT_EQ(plan.status().code(), GetParam().code) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, ConfigTest, testing::ValuesIn(kConfigs),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CheckpointTest, LeavesOutATiedHead) {
  Copy copy;
  copy.Edit("config.json", [](nlohmann::json& config) { config["tie_word_embeddings"] = true; });
  const auto plan = copy.Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const GgufTensor& tensor : plan->header.tensors) EXPECT_NE(tensor.name, "output.weight");
}

TEST(CheckpointTest, CarriesSamplingRecommendationsOver) {
  Copy copy;
  WriteFileOrDie(copy.folder() / "generation_config.json",
                 R"({"temperature": 0.6, "top_k": 40, "max_length": 5})");
  const auto plan = copy.Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan->header.metadata.GetF32("general.sampling.temp"), 0.6f);
  EXPECT_EQ(*plan->header.metadata.GetU32("general.sampling.top_k"), 40u);
}

}  // namespace
}  // namespace odmoe
