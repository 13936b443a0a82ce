#include "services/inference/model/weights.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto base = BaseModel::Open(TinyKimiDirectory("bf16"));
    ASSERT_TRUE(base.ok()) << base.status();
    base_ = *std::move(base);
    auto registry = ReadExpertRegistry(TinyKimiDirectory("bf16"));
    ASSERT_TRUE(registry.ok()) << registry.status();
    catalog_ = registry->catalog;
    auto config = ReadModelConfig(base_->metadata());
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *std::move(config);
  }

  std::string MessageFor(const ModelConfig& config, absl::StatusCode code) {
    const auto weights = FindModelWeights(config, *base_, catalog_);
    EXPECT_EQ(weights.status().code(), code) << weights.status();
    return std::string(weights.status().message());
  }

  std::unique_ptr<BaseModel> base_;
  ExpertCatalog catalog_;
  ModelConfig config_;
};

TEST_F(WeightsTest, FindsEveryTensorInItsShape) {
  const auto weights = FindModelWeights(config_, *base_, catalog_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ(weights->layers.size(), 6u);
  EXPECT_EQ(weights->layers[0].experts, nullptr);
  EXPECT_EQ(weights->layers[1].experts, catalog_.FindLayer(1));
  EXPECT_EQ(weights->layers[1].router_bias.size(), 16u);
  EXPECT_EQ(weights->layers[5].attention.k_b.rows, 8 * 64);
  EXPECT_EQ(weights->layers[5].attention.k_b.dtype, DType::kBF16);
  EXPECT_NE(weights->output.data, weights->embeddings.data);
}

TEST_F(WeightsTest, NamesTheTensorThatIsMissing) {
  config_.layers = 7;
  EXPECT_THAT(MessageFor(config_, absl::StatusCode::kInvalidArgument),
              HasSubstr("blk.6.attn_norm.weight"));
}

TEST_F(WeightsTest, NamesTheShapeItGotAndTheOneItExpected) {
  config_.q_lora = 95;
  EXPECT_THAT(MessageFor(config_, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("blk.0.attn_q_a.weight"), HasSubstr("[256, 96]"),
                    HasSubstr("[256, 95]")));
}

TEST_F(WeightsTest, RefusesExpertsOfAnotherCount) {
  catalog_ = ExpertCatalog();
  EXPECT_THAT(MessageFor(config_, absl::StatusCode::kFailedPrecondition), HasSubstr("layer 1"));
}

TEST_F(WeightsTest, RefusesExpertsOfAnotherShape) {
  std::vector<LayerExperts> layers = catalog_.layers();
  layers[2].layout = *MakeExpertLayout(DType::kBF16, DType::kBF16, DType::kBF16, 256, 64);
  layers[2].xxh3.clear();
  catalog_ = *ExpertCatalog::Create("digest", layers);
  EXPECT_THAT(MessageFor(config_, absl::StatusCode::kFailedPrecondition),
              AllOf(HasSubstr("w1"), HasSubstr("layer 3"), HasSubstr("[128, 256]")));
}

TEST_F(WeightsTest, RefusesExpertsNoKernelMultipliesBy) {
  std::vector<LayerExperts> layers = catalog_.layers();
  layers[0].layout = *MakeExpertLayout(DType::kNVFP4, DType::kNVFP4, DType::kNVFP4, 256, 128);
  layers[0].xxh3.clear();
  catalog_ = *ExpertCatalog::Create("digest", layers);
  EXPECT_THAT(MessageFor(config_, absl::StatusCode::kUnimplemented), HasSubstr("nvfp4"));
}

}  // namespace
}  // namespace odmoe
