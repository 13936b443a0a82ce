#include "services/inference/model/config.h"

#include <cmath>
#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

GgufMetadata Valid() {
  GgufMetadata m;
  m.Set("general.architecture", GgufValue::String("deepseek2"));
  const auto u32 = [&](const char* key, uint32_t value) {
    m.Set(std::string("deepseek2.") + key, GgufValue::U32(value));
  };
  const auto f32 = [&](const char* key, float value) {
    m.Set(std::string("deepseek2.") + key, GgufValue::F32(value));
  };
  u32("block_count", 6);
  u32("context_length", 1024);
  u32("vocab_size", 2048);
  u32("embedding_length", 256);
  u32("feed_forward_length", 512);
  u32("attention.head_count", 8);
  u32("attention.head_count_kv", 1);
  f32("attention.layer_norm_rms_epsilon", 1e-6f);
  u32("attention.q_lora_rank", 96);
  u32("attention.kv_lora_rank", 64);
  u32("attention.key_length", 80);
  u32("attention.value_length", 64);
  u32("attention.key_length_mla", 48);
  u32("attention.value_length_mla", 32);
  u32("rope.dimension_count", 16);
  f32("rope.freq_base", 50000.0f);
  m.Set("deepseek2.rope.scaling.type", GgufValue::String("yarn"));
  f32("rope.scaling.factor", 4.0f);
  u32("rope.scaling.original_context_length", 256);
  f32("rope.scaling.yarn_log_multiplier", 0.1f);
  u32("leading_dense_block_count", 1);
  u32("expert_count", 16);
  u32("expert_used_count", 2);
  u32("expert_shared_count", 1);
  u32("expert_feed_forward_length", 128);
  f32("expert_weights_scale", 2.827f);
  m.Set("deepseek2.expert_weights_norm", GgufValue::Bool(true));
  u32("expert_gating_func", 2);
  return m;
}

GgufMetadata Without(const std::string& key) {
  const GgufMetadata valid = Valid();
  GgufMetadata m;
  for (const auto& [name, value] : valid.entries()) {
    if (name != key) m.Set(name, value);
  }
  return m;
}

GgufMetadata With(const std::string& key, GgufValue value) {
  GgufMetadata m = Valid();
  m.Set(key, std::move(value));
  return m;
}

TEST(ModelConfigTest, ReadsEveryKey) {
  const auto config = ReadModelConfig(Valid());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers, 6);
  EXPECT_EQ(config->vocabulary, 2048);
  EXPECT_EQ(config->nope, 32);
  EXPECT_EQ(config->head_width(), 48);
  EXPECT_EQ(config->cache_width(), 80);
  EXPECT_EQ(config->shared_ffn, 128);
  EXPECT_EQ(config->routing.gate, RoutingConfig::Gate::kSigmoid);
  EXPECT_TRUE(config->routing.normalize);
  EXPECT_FLOAT_EQ(config->routing.scale, 2.827f);
  EXPECT_FALSE(config->IsMoe(0));
  EXPECT_TRUE(config->IsMoe(1));
}

TEST(ModelConfigTest, YarnRaisesTheAttentionScale) {
  const auto config = ReadModelConfig(Valid());
  ASSERT_TRUE(config.ok());
  const double mscale = 1.0 + 0.1 * std::log(4.0);
  EXPECT_NEAR(config->attention_scale(), mscale * mscale / std::sqrt(48.0), 1e-7);
}

TEST(ModelConfigTest, NamesAMissingKey) {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon", "attention.kv_lora_rank",
        "attention.key_length", "attention.value_length", "attention.key_length_mla",
        "attention.value_length_mla", "rope.dimension_count", "rope.scaling.factor",
        "rope.scaling.original_context_length", "expert_used_count",
        "expert_feed_forward_length"}) {
    const std::string name = std::string("deepseek2.") + key;
    const auto config = ReadModelConfig(Without(name));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(name));
  }
}

TEST(ModelConfigTest, NamesAKeyThatIsOutOfRangeOrContradicts) {
  const struct {
    const char* key;
    GgufValue value;
  } kCases[] = {
      {"block_count", GgufValue::U32(0)},
      {"block_count", GgufValue::U32(2147483648u)},
      {"block_count", GgufValue::String("six")},
      {"embedding_length", GgufValue::U32(0)},
      {"vocab_size", GgufValue::U32(4000000000u)},
      {"attention.head_count_kv", GgufValue::U32(8)},
      {"attention.key_length", GgufValue::U32(81)},
      {"attention.value_length", GgufValue::U32(63)},
      {"attention.key_length_mla", GgufValue::U32(16)},
      {"attention.layer_norm_rms_epsilon", GgufValue::F32(std::nanf(""))},
      {"rope.dimension_count", GgufValue::U32(15)},
      {"rope.freq_base", GgufValue::F32(0.0f)},
      {"rope.scaling.type", GgufValue::String("longrope")},
      {"rope.scaling.factor", GgufValue::F32(-4.0f)},
      {"expert_count", GgufValue::U32(2147483648u)},
      {"expert_used_count", GgufValue::U32(17)},
      {"expert_gating_func", GgufValue::U32(3)},
      {"expert_group_count", GgufValue::U32(5)},
      {"leading_dense_block_count", GgufValue::U32(7)},
      {"nextn_predict_layers", GgufValue::U32(6)},
  };
  for (const auto& c : kCases) {
    const std::string name = std::string("deepseek2.") + c.key;
    const auto config = ReadModelConfig(With(name, c.value));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(name));
  }
}

TEST(ModelConfigTest, GroupsMustLeaveEnoughExperts) {
  GgufMetadata m = With("deepseek2.expert_group_count", GgufValue::U32(16));
  m.Set("deepseek2.expert_group_used_count", GgufValue::U32(1));
  EXPECT_EQ(ReadModelConfig(m).status().code(), absl::StatusCode::kInvalidArgument);
  m.Set("deepseek2.expert_group_used_count", GgufValue::U32(2));
  EXPECT_TRUE(ReadModelConfig(m).ok());
}

TEST(ModelConfigTest, NoGroupsMayBeWrittenAsZero) {
  GgufMetadata m = With("deepseek2.expert_group_count", GgufValue::U32(0));
  m.Set("deepseek2.expert_group_used_count", GgufValue::U32(0));
  const auto config = ReadModelConfig(m);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->routing.groups, 1);
}

TEST(ModelConfigTest, PredictionLayersAreLeftOut) {
  const auto config =
      ReadModelConfig(With("deepseek2.nextn_predict_layers", GgufValue::U32(1)));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers, 5);
}

TEST(ModelConfigTest, AbsentGateIsSoftmaxAsInV2) {
  const auto config = ReadModelConfig(Without("deepseek2.expert_gating_func"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->routing.gate, RoutingConfig::Gate::kSoftmax);
}

TEST(ModelConfigTest, AModelWithoutExpertsIsDense) {
  const auto config = ReadModelConfig(With("deepseek2.expert_count", GgufValue::U32(0)));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->IsMoe(5));
}

TEST(ModelConfigTest, NamesAnArchitectureItDoesNotRun) {
  const auto config =
      ReadModelConfig(With("general.architecture", GgufValue::String("mamba")));
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("mamba"));
}

TEST(ModelConfigTest, VocabularyComesFromTheTokensWhereItsKeyIsMissing) {
  GgufMetadata m = Without("deepseek2.vocab_size");
  m.Set("tokenizer.ggml.tokens", GgufValue::Strings({"a", "b", "c"}));
  const auto config = ReadModelConfig(m);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocabulary, 3);
}

}  // namespace
}  // namespace odmoe
