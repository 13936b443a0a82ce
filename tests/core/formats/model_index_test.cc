#include "services/core/formats/model_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ExpertCatalog TwoLayers() {
  const ExpertLayout layout = MakeExpertLayout(DType::kBF16, DType::kQ8_0, DType::kF16, 64, 32).value();
  std::vector<LayerExperts> layers = {
      {.layer = 1, .expert_count = 2, .layout = layout, .xxh3 = {1, 0xfedcba9876543210}},
      {.layer = 7, .expert_count = 1, .layout = layout, .xxh3 = {3}}};
  return ExpertCatalog::Create(ModelDigest(layers), layers).value();
}

std::vector<ExpertFile> Files(const ExpertCatalog& catalog) {
  std::vector<ExpertFile> files;
  for (int64_t i = 0; i < catalog.expert_count(); ++i) {
    files.push_back({.file_bytes = 4096 + catalog.max_expert_bytes(), .data_offset = 4096});
  }
  return files;
}

std::string Registry() { return EncodeExpertRegistry(TwoLayers(), Files(TwoLayers())); }

TEST(ExpertRegistryTest, ComesBackAsItWas) {
  const auto registry = ParseExpertRegistry(Registry(), "/models/m", "registry.json");
  ASSERT_TRUE(registry.ok()) << registry.status();
  const ExpertCatalog expected = TwoLayers();
  EXPECT_EQ(registry->catalog.model_digest(), expected.model_digest());
  ASSERT_EQ(registry->catalog.layers().size(), 2u);
  EXPECT_EQ(registry->catalog.layers()[0].layout, expected.layers()[0].layout);
  EXPECT_THAT(registry->catalog.layers()[0].xxh3, ElementsAre(1, 0xfedcba9876543210));
  EXPECT_EQ(registry->files[2].path, "/models/m/experts/layer_07_expert_000.safetensors");
  EXPECT_EQ(registry->files[2].data_offset, 4096u);
}

// Names beyond two and three digits sort differently as text.
TEST(ExpertRegistryTest, HoldsMoreExpertsThanThreeDigitsCount) {
  const ExpertLayout layout = MakeExpertLayout(DType::kF16, DType::kF16, DType::kF16, 2, 2).value();
  std::vector<LayerExperts> layers = {
      {.layer = 100, .expert_count = 1002, .layout = layout, .xxh3 = std::vector<uint64_t>(1002)}};
  for (size_t i = 0; i < 1002; ++i) layers[0].xxh3[i] = i;
  const ExpertCatalog catalog = ExpertCatalog::Create("digest", layers).value();
  const auto registry =
      ParseExpertRegistry(EncodeExpertRegistry(catalog, Files(catalog)), "m", "registry.json");
  ASSERT_TRUE(registry.ok()) << registry.status();
  EXPECT_EQ(registry->files[1001].path, "m/experts/layer_100_expert_1001.safetensors");
  EXPECT_EQ(registry->catalog.layers()[0].xxh3, layers[0].xxh3);
}

struct Edit {
  const char* name;
  std::vector<std::pair<std::string, std::string>> replacements;
  const char* message;
};

void PrintTo(const Edit& edit, std::ostream* out) { *out << edit.name; }

const Edit kEdits[] = {
    {"AnotherFormat", {{"\"odmoe-model\"", "\"other\""}}, "'format' should be 'odmoe-model'"},
    {"LaterVersion", {{"\"version\":1", "\"version\":2"}}, "'version'"},
    {"CountDiffers", {{"\"expert_count\":3", "\"expert_count\":4"}}, "expert_count is 4"},
    {"KeyAndIdsDiffer", {{"\"layer_07_expert_000\"", "\"layer_08_expert_000\""}}, "belong under"},
    {"PathLeadsUp", {{"experts/layer_07", "experts/../../layer_07"}}, "inside the model directory"},
    {"PathIsAbsolute", {{"experts/layer_07", "/etc/layer_07"}}, "inside the model directory"},
    {"ExpertMissing",
     {{"layer_01_expert_000", "layer_01_expert_005"},
      {"\"layer\":1,\"expert_id\":0", "\"layer\":1,\"expert_id\":5"}},
     "layer_01_expert_000 is missing"},
    {"NegativeLayer", {{"\"layer\":7", "\"layer\":-7"}}, "'layer'"},
    {"HugeExpert", {{"\"expert_id\":1,", "\"expert_id\":99999999999,"}}, "'expert_id'"},
    {"DataOffsetOdd", {{"\"data_offset\":4096", "\"data_offset\":4095"}}, "boundary"},
    {"DataBeyondTheFile", {{"\"data_offset\":4096", "\"data_offset\":8192"}}, "do not fit"},
    {"SizeHuge", {{"\"data_offset\":4096", "\"data_offset\":18446744073709547520"}}, "do not fit"},
    {"ShapesDoNotFit", {{"\"shape\":[32,64]", "\"shape\":[32,96]"}}, "back to back"},
    {"GapBetweenMatrices", {{"\"offset\":4096", "\"offset\":4100"}}, "back to back"},
    {"NoWeights", {{"\"w3.weight\"", "\"w4.weight\""}}, "w3.weight"},
    {"UnknownFormat", {{"\"q8_0\"", "\"q8_9\""}}, "'dtype'"},
    {"HashNotHex", {{"fedcba9876543210", "gedcba9876543210"}}, "16 hex digits"},
};

class DamagedRegistryTest : public testing::TestWithParam<Edit> {};

TEST_P(DamagedRegistryTest, IsRefusedByName) {
  const std::string text = Registry();
  const std::string damaged = absl::StrReplaceAll(text, [&] {
    std::vector<std::pair<absl::string_view, absl::string_view>> pairs;
    for (const auto& [from, to] : GetParam().replacements) pairs.emplace_back(from, to);
    return pairs;
  }());
  ASSERT_NE(damaged, text);
  const auto registry = ParseExpertRegistry(damaged, "m", "registry.json");
  EXPECT_EQ(registry.status().code(), absl::StatusCode::kDataLoss) << registry.status();
  EXPECT_THAT(std::string(registry.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, DamagedRegistryTest, testing::ValuesIn(kEdits),
                         [](const auto& info) { return std::string(info.param.name); });

ModelIndex SmallIndex() {
  ModelIndex index;
  index.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
  index.gguf_version = 2;
  index.gguf_alignment = 64;
  index.gguf_bytes = 12345;
  index.model_digest = "abc";
  index.tensors = {{.name = "blk.1.ffn_up_exps.weight",
                    .dtype = DType::kQ8_0,
                    .ne = {64, 32, 2},
                    .expert_layer = 1,
                    .expert_parts = {ExpertPart::kW3}},
                   {.name = "output.weight",
                    .dtype = DType::kF16,
                    .ne = {64, 3},
                    .file = "lm_head.safetensors",
                    .offset = 4096}};
  return index;
}

TEST(ModelIndexTest, ComesBackAsItWasInTheFilesOrder) {
  const auto text = EncodeModelIndex(SmallIndex());
  ASSERT_TRUE(text.ok()) << text.status();
  const auto index = ParseModelIndex(*text, "metadata.json");
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->metadata.entries(), SmallIndex().metadata.entries());
  EXPECT_EQ(index->gguf_version, 2u);
  EXPECT_EQ(index->gguf_alignment, 64u);
  EXPECT_EQ(index->gguf_bytes, 12345u);
  ASSERT_EQ(index->tensors.size(), 2u);
  EXPECT_EQ(index->tensors[0].name, "blk.1.ffn_up_exps.weight");
  EXPECT_THAT(index->tensors[0].expert_parts, ElementsAre(ExpertPart::kW3));
  EXPECT_THAT(index->tensors[0].ne, ElementsAre(64, 32, 2));
  EXPECT_EQ(index->tensors[1].file, "lm_head.safetensors");
  EXPECT_EQ(index->tensors[1].offset, 4096u);
  EXPECT_EQ(index->tensors[1].bytes, 384u);
}

TEST(ModelIndexTest, RefusesFilesOutsideItsFolderAndShapesThatOverflow) {
  const std::string text = EncodeModelIndex(SmallIndex()).value();
  for (const auto& [from, to] : {std::pair{"lm_head.safe", "../lm_head.safe"},
                                 std::pair{"lm_head.safe", "/etc/lm_head.safe"},
                                 std::pair{"lm_head.safetensors", ".."},
                                 std::pair{"[3,64]", "[9223372036854775807,64]"},
                                 std::pair{"[3,64]", "[0,64]"},
                                 std::pair{"\"output.weight\"", "\"blk.1.ffn_up_exps.weight\""}}) {
    const std::string damaged = absl::StrReplaceAll(text, {{from, to}});
    ASSERT_NE(damaged, text);
    EXPECT_EQ(ParseModelIndex(damaged, "metadata.json").status().code(),
              absl::StatusCode::kDataLoss)
        << to;
  }
}

TEST(ModelDigestTest, IsEqualForEqualBytesAlone) {
  std::vector<LayerExperts> layers = TwoLayers().layers();
  const std::string digest = ModelDigest(layers);
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(ModelDigest(layers), digest);
  layers[1].xxh3[0] ^= 1;
  EXPECT_NE(ModelDigest(layers), digest);
}

}  // namespace
}  // namespace odmoe
