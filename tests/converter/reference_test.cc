// Every architecture in every format, against what the reference converter makes of the same
// checkpoint: key for key and tensor for tensor, by type, shape, order and the hash of its bytes.
#include <xxhash.h>

#include <cstring>

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "converter/convert.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/tensor/convert.h"
#include "tests/support/made_checkpoint.h"

namespace odmoe {
namespace {

constexpr const char* kOutTypes[] = {"f32", "f16", "bf16", "q8_0", "auto"};
constexpr const char* kCheckpoints[] = {
    "deepseek2", "deepseek2_lite", "deepseek3",      "deepseek3_fp8", "kimi_k2", "kimi_k25",
    "mixtral",   "qwen2moe",       "qwen3moe",       "qwen3moe_fp8",  "qwen3moe_fused",
    "olmoe",     "llama2",         "llama3",         "mistral",       "qwen2",   "qwen3"};

std::unique_ptr<GgufReader> Convert(const std::string& checkpoint, const std::string& destination,
                                    const std::string& outtype,
                                    const std::string& base_model = "") {
  const auto plan = PlanConversion({.source = checkpoint,
                                    .destination = destination,
                                    .outtype = outtype,
                                    .base_model = base_model});
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return nullptr;
  EXPECT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  return GgufReader::Open(*PosixFileSystem().OpenForRead(destination)).value();
}

// [name, type, value], as the fixtures have a key.
nlohmann::json KeyRow(const std::string& name, const GgufValue& value) {
  if (value.is_array) {
    nlohmann::json row = {name, absl::StrCat(GgufTypeName(value.type), "s")};
    std::visit([&](const auto& elements) { row.push_back(elements); }, value.array);
    return row;
  }
  nlohmann::json row = {name, std::string(GgufTypeName(value.type))};
  if (value.type == GgufType::kBool) {
    row.push_back(std::get<uint64_t>(value.scalar) != 0);
  } else {
    std::visit([&](const auto& scalar) { row.push_back(scalar); }, value.scalar);
  }
  return row;
}

void ExpectReferenceKeys(const GgufReader& reader, const nlohmann::json& fixture,
                         const std::string& outtype) {
  std::vector<nlohmann::json> got;
  for (const auto& [name, value] : reader.metadata().entries()) {
    // The tokenizer's are compared where the tokenizers are.
    if (!absl::StartsWith(name, "tokenizer.")) got.push_back(KeyRow(name, value));
  }
  const nlohmann::json& expected = fixture["keys"];
  for (size_t i = 0; i < std::max(got.size(), expected.size()); ++i) {
    const nlohmann::json ours = i < got.size() ? got[i] : nlohmann::json();
    nlohmann::json row = i < expected.size() ? expected[i] : nlohmann::json();
    if (!row.is_null() && row[0] == "general.file_type") row[2] = fixture["file_type"][outtype];
    EXPECT_EQ(ours, row);
  }
}

std::string HashOf(const GgufReader& reader, const GgufTensor& tensor) {
  std::vector<std::byte> data(tensor.bytes);
  EXPECT_EQ(reader.ReadTensor(tensor, 0, absl::MakeSpan(data)), absl::OkStatus());
  return absl::StrFormat("%016x", XXH3_64bits(data.data(), data.size()));
}

void ExpectReferenceTensors(const GgufReader& reader, const nlohmann::json& fixture,
                            const std::string& outtype) {
  const nlohmann::json& expected = fixture["gguf_tensors"];
  ASSERT_EQ(reader.tensors().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const GgufTensor& tensor = reader.tensors()[i];
    const nlohmann::json& as = expected[i][2][outtype];
    EXPECT_EQ(tensor.name, expected[i][0]);
    EXPECT_EQ(nlohmann::json(tensor.ne), expected[i][1]) << tensor.name;
    EXPECT_EQ(Info(tensor.dtype).name, as[0].get<std::string>()) << tensor.name;
    EXPECT_EQ(HashOf(reader, tensor), as[1]) << tensor.name;
  }
}

constexpr char kPackedWeight[] =
    "language_model.model.layers.1.mlp.experts.0.up_proj.weight_packed";

class ReferenceTest : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceTest, GivesTheReferenceConvertersFile) {
  const MadeCheckpoint made(GetParam());
  TemporaryDirectory folder;
  const std::string checkpoint = made.Write(folder);
  for (const std::string outtype : kOutTypes) {
    SCOPED_TRACE(outtype);
    // There auto keeps int4 packs, which the reference makes floats of.
    if (outtype == "auto" && made.Has(kPackedWeight)) continue;
    const auto reader = Convert(checkpoint, folder / "out.gguf", outtype);
    ASSERT_NE(reader, nullptr);
    ExpectReferenceKeys(*reader, made.fixture(), outtype);
    ExpectReferenceTensors(*reader, made.fixture(), outtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, ReferenceTest, testing::ValuesIn(kCheckpoints),
                         [](const auto& info) { return std::string(info.param); });

class AdapterReferenceTest : public testing::TestWithParam<const char*> {};

TEST_P(AdapterReferenceTest, GivesTheReferenceConvertersFile) {
  const MadeCheckpoint made(GetParam());
  TemporaryDirectory folder;
  const std::string adapter = made.WriteAdapter(folder);
  for (const std::string outtype : {"f32", "f16", "bf16", "q8_0"}) {
    SCOPED_TRACE(outtype);
    const auto reader =
        Convert(adapter, folder / (outtype + ".gguf"), outtype, folder / "base");
    ASSERT_NE(reader, nullptr);
    ExpectReferenceKeys(*reader, made.fixture(), outtype);
    ExpectReferenceTensors(*reader, made.fixture(), outtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Adapters, AdapterReferenceTest,
                         testing::Values("lora_llama3", "lora_qwen3moe", "lora_deepseek3"),
                         [](const auto& info) { return std::string(info.param); });

// What one command in several variants gave: tests/data/checkpoints/variants.json.
nlohmann::json Variants(const char* key) {
  return nlohmann::json::parse(
      ReadFileOrDie(absl::StrCat(ODMOE_TEST_DATA, "/checkpoints/variants.json")))[key];
}

// The reference's shards, by name; all but the first, which has the tokenizer's keys, byte for
// byte.
TEST(SplitReferenceTest, CutsWhereTheReferenceConverterDoes) {
  for (const nlohmann::json& variant : Variants("shards")) {
    const std::string size = variant["size"];
    SCOPED_TRACE(absl::StrCat(variant["checkpoint"].get<std::string>(), " ", size));
    TemporaryDirectory folder;
    const auto plan = PlanConversion(
        {.source = MadeCheckpoint(variant["checkpoint"].get<std::string>()).Write(folder),
         .destination = folder / "out.gguf",
         .outtype = variant["outtype"],
         .split_max_bytes = ParseSplitSize(size).value()});
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
    ASSERT_EQ(plan->outputs.size(), variant["files"].size());
    for (size_t i = 0; i < plan->outputs.size(); ++i) {
      const nlohmann::json& expected = variant["files"][i];
      EXPECT_EQ(plan->outputs[i], folder / expected["name"].get<std::string>());
      const std::string bytes = ReadFileOrDie(plan->outputs[i]);
      if (i > 0) {
        EXPECT_EQ(bytes.size(), expected["bytes"]);
        EXPECT_EQ(absl::StrFormat("%016x", XXH3_64bits(bytes.data(), bytes.size())),
                  expected["xxh3"].get<std::string>());
        continue;
      }
      const auto reader = *GgufReader::Open(*PosixFileSystem().OpenForRead(plan->outputs[i]));
      nlohmann::json keys = nlohmann::json::array(), names = nlohmann::json::array();
      for (const auto& [name, value] : reader->metadata().entries()) {
        if (absl::StartsWith(name, "split.")) keys.push_back(KeyRow(name, value));
      }
      for (const GgufTensor& tensor : reader->tensors()) names.push_back(tensor.name);
      EXPECT_EQ(keys, expected["split_keys"]);
      EXPECT_EQ(names, expected["tensors"]);
    }
  }
}

TEST(RopeFrequenciesTest, AreTheReferencesForAnyHeadDimension) {
  for (const nlohmann::json& variant : Variants("rope_freqs")) {
    SCOPED_TRACE(variant.dump());
    const int64_t head = variant["head_dim"];
    MadeCheckpoint made("llama3");
    made.config["head_dim"] = head;
    made.config["rope_scaling"] = variant["rope_scaling"];
    for (MadeTensor& tensor : made.tensors) {
      for (const auto& [name, heads] : {std::pair{"q_proj", 4}, {"k_proj", 2}, {"v_proj", 2}}) {
        if (absl::StrContains(tensor.name, name)) tensor.shape[0] = heads * head;
      }
      if (absl::StrContains(tensor.name, "o_proj.weight")) tensor.shape[1] = 4 * head;
    }
    TemporaryDirectory folder;
    const auto reader = Convert(made.Write(folder), folder / "out.gguf", "f32");
    ASSERT_NE(reader, nullptr);
    const GgufTensor* tensor = reader->Find("rope_freqs.weight");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(nlohmann::json(tensor->ne), nlohmann::json({variant["elements"]}));
    EXPECT_EQ(HashOf(*reader, *tensor), variant["hash"]);
  }
}

// The values of Q4_0 blocks, as F32.
std::vector<float> Q4_0Values(const std::vector<std::byte>& data) {
  std::vector<float> values;
  for (size_t at = 0; at < data.size(); at += 18) {
    uint16_t scale = 0;
    std::memcpy(&scale, data.data() + at, sizeof(scale));
    for (const int shift : {0, 4}) {
      for (size_t i = 0; i < 16; ++i) {
        const int code = static_cast<int>(data[at + 2 + i]) >> shift & 0x0f;
        values.push_back(static_cast<float>(code - 8) * F16ToF32(scale));
      }
    }
  }
  return values;
}

TEST(KimiK25Test, AutoKeepsInt4PacksWithoutLossWhereTheirScalesFit) {
  const MadeCheckpoint made("kimi_k25");
  TemporaryDirectory folder;
  const auto reader = Convert(made.Write(folder), folder / "out.gguf", "auto");
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(*reader->metadata().GetU32("general.file_type"), 2u);
  size_t packed = 0;
  for (const nlohmann::json& row : made.fixture()["gguf_tensors"]) {
    const GgufTensor* tensor = reader->Find(row[0].get<std::string>());
    ASSERT_NE(tensor, nullptr) << row[0];
    if (tensor->dtype != DType::kQ4_0) {
      EXPECT_EQ(HashOf(*reader, *tensor), row[2]["bf16"][1]) << row[0];
      continue;
    }
    ++packed;
    std::vector<std::byte> data(tensor->bytes);
    ASSERT_EQ(reader->ReadTensor(*tensor, 0, absl::MakeSpan(data)), absl::OkStatus());
    const std::vector<float> values = Q4_0Values(data);
    EXPECT_EQ(absl::StrFormat("%016x", XXH3_64bits(values.data(), values.size() * sizeof(float))),
              row[2]["f32"][1])
        << row[0];
  }
  // Of the layer's three stacks, one has a scale that no F16 holds.
  EXPECT_EQ(packed, 2u);
  EXPECT_EQ(reader->Find("blk.1.ffn_up_exps.weight")->dtype, DType::kBF16);
}

}  // namespace
}  // namespace odmoe
