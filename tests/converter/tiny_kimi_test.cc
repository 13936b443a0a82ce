// The real checkpoint in tests/data through every conversion; its own bytes are the expectation.
#include <cstring>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "converter/convert.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/safetensors.h"
#include "services/core/tensor/convert.h"
#include "tests/converter/shipped_checkpoint.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;

constexpr int kHeads = 8, kNope = 32, kValue = 32, kRank = 64, kExperts = 16;

std::string ConvertTo(const TemporaryDirectory& folder, const std::string& name,
                      const std::string& outtype) {
  const auto plan = PlanConversion({kCheckpoint, folder / name, outtype});
  EXPECT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  return folder / name;
}

std::unique_ptr<GgufReader> OpenKimi(const std::string& path) {
  auto reader = GgufReader::Open(*PosixFileSystem().OpenForRead(path));
  EXPECT_TRUE(reader.ok()) << reader.status();
  return *std::move(reader);
}

// The checkpoint's weights as floats, read by nothing but its safetensors header.
class Weights {
 public:
  Weights()
      : reader_(SafetensorsReader::Open(*PosixFileSystem().OpenForRead(
                                            kCheckpoint + "/model.safetensors"))
                    .value()) {}

  std::vector<float> Get(const std::string& name) const {
    const SafetensorsTensor* tensor = reader_->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    std::vector<std::byte> bytes(tensor->bytes);
    EXPECT_EQ(reader_->ReadTensor(*tensor, 0, absl::MakeSpan(bytes)), absl::OkStatus());
    const bool f32 = tensor->dtype == "F32";
    std::vector<float> values(bytes.size() / (f32 ? 4 : 2));
    EXPECT_EQ(DecodeRow(f32 ? DType::kF32 : DType::kBF16, bytes.data(), absl::MakeSpan(values)),
              absl::OkStatus());
    return values;
  }

 private:
  std::unique_ptr<SafetensorsReader> reader_;
};

// What a tensor of the GGUF file should hold, written down once more and apart from the rules.
std::vector<float> Expected(const Weights& weights, const std::string& name) {
  if (name == "token_embd.weight") return weights.Get("model.embed_tokens.weight");
  if (name == "output_norm.weight") return weights.Get("model.norm.weight");
  if (name == "output.weight") return weights.Get("lm_head.weight");
  const std::vector<std::string> parts = absl::StrSplit(name, absl::MaxSplits('.', 2));
  const std::string layer = absl::StrCat("model.layers.", parts[1], ".");
  const std::string& kind = parts[2];
  if (absl::StrContains(kind, "_exps.")) {
    const std::vector<std::string> words = absl::StrSplit(kind, '_');
    std::vector<float> stacked;
    for (int expert = 0; expert < kExperts; ++expert) {
      const std::vector<float> one = weights.Get(
          absl::StrCat(layer, "mlp.experts.", expert, ".", words[1], "_proj.weight"));
      stacked.insert(stacked.end(), one.begin(), one.end());
    }
    return stacked;
  }
  if (kind == "attn_k_b.weight" || kind == "attn_v_b.weight") {
    const std::vector<float> both = weights.Get(layer + "self_attn.kv_b_proj.weight");
    const auto at = [&](int head, int row, int column) {
      return both[static_cast<size_t>((head * (kNope + kValue) + row) * kRank + column)];
    };
    std::vector<float> half;
    for (int head = 0; head < kHeads; ++head) {
      if (kind == "attn_v_b.weight") {
        for (int v = 0; v < kValue; ++v) {
          for (int r = 0; r < kRank; ++r) half.push_back(at(head, kNope + v, r));
        }
      } else {
        for (int r = 0; r < kRank; ++r) {
          for (int n = 0; n < kNope; ++n) half.push_back(at(head, n, r));
        }
      }
    }
    return half;
  }
  static const auto& kNames = *new std::map<std::string, std::string>{
      {"attn_norm.weight", "input_layernorm.weight"},
      {"ffn_norm.weight", "post_attention_layernorm.weight"},
      {"attn_q_a.weight", "self_attn.q_a_proj.weight"},
      {"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
      {"attn_q_b.weight", "self_attn.q_b_proj.weight"},
      {"attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"},
      {"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
      {"attn_output.weight", "self_attn.o_proj.weight"},
      {"ffn_gate.weight", "mlp.gate_proj.weight"},
      {"ffn_up.weight", "mlp.up_proj.weight"},
      {"ffn_down.weight", "mlp.down_proj.weight"},
      {"ffn_gate_inp.weight", "mlp.gate.weight"},
      {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
      {"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
      {"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
      {"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"}};
  return weights.Get(layer + kNames.at(kind));
}

class TinyKimiTest : public testing::TestWithParam<const char*> {};

TEST_P(TinyKimiTest, HasEveryWeightByteForByte) {
  TemporaryDirectory folder;
  const auto reader = OpenKimi(ConvertTo(folder, "model.gguf", GetParam()));
  const Weights weights;
  EXPECT_EQ(reader->tensors().size(), 106u);
  for (const GgufTensor& tensor : reader->tensors()) {
    const std::vector<float> values = Expected(weights, tensor.name);
    ASSERT_EQ(values.size(), size_t(tensor.columns() * tensor.rows())) << tensor.name;
    const bool sensitive = tensor.ne.size() == 1 || absl::EndsWith(tensor.name, "gate_inp.weight");
    EXPECT_EQ(Info(tensor.dtype).name, sensitive ? "f32" : GetParam()) << tensor.name;
    // Columns are whole blocks throughout, so the tensor can be encoded as one long row.
    std::vector<std::byte> expected(tensor.bytes), stored(tensor.bytes);
    ASSERT_EQ(EncodeRow(tensor.dtype, values, expected.data()), absl::OkStatus());
    ASSERT_EQ(reader->ReadTensor(tensor, 0, absl::MakeSpan(stored)), absl::OkStatus());
    EXPECT_TRUE(stored == expected) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, TinyKimiTest, testing::Values("f32", "f16", "bf16", "q8_0"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TinyKimiFileTest, HasMainlinesKeysInItsOrder) {
  TemporaryDirectory folder;
  const auto reader = OpenKimi(ConvertTo(folder, "model.gguf", "auto"));
  std::vector<std::string> keys;
  for (const auto& [key, value] : reader->metadata().entries()) keys.push_back(key);
  const std::vector<std::string> expected = {
      "general.architecture", "general.type", "general.name", "general.size_label",
      "deepseek2.block_count", "deepseek2.context_length", "deepseek2.embedding_length",
      "deepseek2.feed_forward_length", "deepseek2.attention.head_count",
      "deepseek2.attention.head_count_kv", "deepseek2.rope.scaling.type",
      "deepseek2.rope.scaling.factor", "deepseek2.rope.scaling.original_context_length",
      "deepseek2.rope.scaling.yarn_beta_fast", "deepseek2.rope.scaling.yarn_beta_slow",
      "deepseek2.rope.freq_base", "deepseek2.attention.layer_norm_rms_epsilon",
      "deepseek2.expert_count", "deepseek2.expert_used_count", "deepseek2.expert_group_count",
      "deepseek2.expert_group_used_count", "deepseek2.expert_gating_func", "general.file_type",
      "deepseek2.leading_dense_block_count", "deepseek2.vocab_size",
      "deepseek2.attention.q_lora_rank", "deepseek2.attention.kv_lora_rank",
      "deepseek2.attention.key_length", "deepseek2.attention.value_length",
      "deepseek2.attention.key_length_mla", "deepseek2.attention.value_length_mla",
      "deepseek2.expert_feed_forward_length", "deepseek2.expert_shared_count",
      "deepseek2.expert_weights_scale",
      "deepseek2.expert_weights_norm", "deepseek2.rope.dimension_count",
      "deepseek2.rope.scaling.yarn_log_multiplier", "general.quantization_version",
      "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
      "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id",
      "tokenizer.ggml.padding_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.chat_template"};
  EXPECT_EQ(keys, expected);
  const GgufMetadata& metadata = reader->metadata();
  EXPECT_EQ(*metadata.GetU32("deepseek2.attention.head_count_kv"), 1u);
  EXPECT_EQ(*metadata.GetU32("deepseek2.attention.key_length"), 80u);
  EXPECT_EQ(*metadata.GetU32("deepseek2.attention.value_length"), 64u);
  EXPECT_EQ(*metadata.GetU32("deepseek2.attention.key_length_mla"), 48u);
  EXPECT_EQ(*metadata.GetU32("deepseek2.expert_gating_func"), 2u);
  EXPECT_EQ(*metadata.GetF32("deepseek2.rope.scaling.yarn_log_multiplier"), 0.1f);
  EXPECT_EQ(*metadata.GetF32("deepseek2.expert_weights_scale"), 2.827f);
  EXPECT_EQ(*metadata.GetU32("general.file_type"), 32u);
  EXPECT_EQ(*metadata.GetString("general.name"), "Tiny Kimi");
  EXPECT_EQ(*metadata.GetString("general.size_label"), "16x3.5M");
  EXPECT_EQ(*metadata.GetString("tokenizer.ggml.pre"), "qwen2");
  EXPECT_EQ(*metadata.GetU32("tokenizer.ggml.eos_token_id"), 2045u);
  EXPECT_FALSE(*metadata.GetBool("tokenizer.ggml.add_bos_token"));
}

TEST(TinyKimiFileTest, WritesALayersTensorsInMainlinesOrder) {
  TemporaryDirectory folder;
  const auto reader = OpenKimi(ConvertTo(folder, "model.gguf", "bf16"));
  std::vector<std::string> names;
  for (const GgufTensor& tensor : reader->tensors()) {
    if (absl::StartsWith(tensor.name, "blk.1.ffn")) names.push_back(tensor.name.substr(6));
  }
  EXPECT_THAT(names,
              ElementsAre("ffn_down_exps.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight",
                          "ffn_gate_inp.weight", "ffn_down_shexp.weight", "ffn_gate_shexp.weight",
                          "ffn_up_shexp.weight", "ffn_norm.weight"));
  const GgufTensor* k_b = reader->Find("blk.0.attn_k_b.weight");
  EXPECT_THAT(k_b->ne, ElementsAre(kNope, kRank, kHeads));
  EXPECT_THAT(reader->Find("blk.0.attn_v_b.weight")->ne, ElementsAre(kRank, kValue, kHeads));
}

TEST(TinyKimiFileTest, GivesTheSameDirectoryInOneStepAndInTwo) {
  TemporaryDirectory folder;
  ConvertTo(folder, "direct", "q8_0");
  const std::string gguf = ConvertTo(folder, "model.gguf", "q8_0");
  const auto plan = PlanConversion({gguf, folder / "split"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(RunConversion(*plan, nullptr, nullptr), absl::OkStatus());
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "direct")) {
    if (!entry.is_regular_file()) continue;
    const std::string inside = std::filesystem::relative(entry.path(), folder / "direct");
    EXPECT_TRUE(ReadFileOrDie(entry.path()) == ReadFileOrDie(folder / ("split/" + inside)))
        << inside;
    ++files;
  }
  EXPECT_EQ(files, 5u * 16 + 4 + 2);
  EXPECT_FALSE(std::filesystem::exists(folder / "direct.partial.gguf"));
}

TEST(TinyKimiFileTest, OpensAsAModelDirectory) {
  TemporaryDirectory folder;
  const std::string directory = ConvertTo(folder, "model", "auto");
  const auto base = BaseModel::Open(directory);
  ASSERT_TRUE(base.ok()) << base.status();
  const auto registry = ReadExpertRegistry(directory);
  ASSERT_TRUE(registry.ok()) << registry.status();
  EXPECT_EQ(registry->catalog.expert_count(), 80);
  EXPECT_EQ(registry->catalog.layers()[0].layer, 1);
  EXPECT_EQ((*base)->tensors().size(), 106u - 15);
  EXPECT_EQ(registry->catalog.max_expert_bytes(), 3u * 128 * 256 * 2);
  for (const BaseTensor& tensor : (*base)->tensors()) {
    // Readable in place: no element of it lies across its own alignment.
    const size_t alignment =
        Info(tensor.dtype).block_elements == 1 ? Info(tensor.dtype).block_bytes : 2;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % alignment, 0u) << tensor.name;
  }
}

}  // namespace
}  // namespace odmoe
