#include "services/core/formats/model_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/formats/small_model_index.h"

namespace odmoe {
namespace {

using testing::ElementsAre;

TEST(ExpertRegistryTest, ComesBackAsItWas) {
  const auto registry = ParseExpertRegistry(SmallRegistry(), "/models/m", "registry.json");
  ASSERT_TRUE(registry.ok()) << registry.status();
  const ExpertCatalog expected = SmallCatalog();
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
      ParseExpertRegistry(EncodeExpertRegistry(catalog, SmallFiles(catalog)), "m", "registry.json");
  ASSERT_TRUE(registry.ok()) << registry.status();
  EXPECT_EQ(registry->files[1001].path, "m/experts/layer_100_expert_1001.safetensors");
  EXPECT_EQ(registry->catalog.layers()[0].xxh3, layers[0].xxh3);
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

TEST(ModelDigestTest, IsEqualForEqualBytesAlone) {
  std::vector<LayerExperts> layers = SmallCatalog().layers();
  const std::string digest = ModelDigest(layers);
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(ModelDigest(layers), digest);
  layers[1].xxh3[0] ^= 1;
  EXPECT_NE(ModelDigest(layers), digest);
}

}  // namespace
}  // namespace odmoe
