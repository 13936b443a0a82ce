// Llama 2 and 3, Mistral and Mixtral. Hugging Face keeps the two halves of a rotary pair half a
// head apart, GGUF's llama side by side, so query and key rows are reordered.
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "converter/huggingface/families/common_rules.h"
#include "converter/huggingface/families/families.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr const char* kMixtralRequired[] = {
    "vocab_size",          "hidden_size",       "intermediate_size",  "num_hidden_layers",
    "num_attention_heads", "num_local_experts", "num_experts_per_tok"};

// Mixtral's experts, as wide as intermediate_size says; fused ones as newer libraries write them.
constexpr NameRule kMixtral[] = {
    {"model.layers.{}.block_sparse_moe.gate.weight", "blk.{}.ffn_gate_inp.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kHidden}, RuleKind::kCopy,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", RulePlace::kExpertLayers,
     {Dim::kExperts, Dim::kHidden}, RuleKind::kCopy, RuleNeed::kIfFused},
    {"model.layers.{}.block_sparse_moe.experts.{}.w1.weight", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.block_sparse_moe.experts.{}.w2.weight", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kFeedForward}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.block_sparse_moe.experts.{}.w3.weight", "blk.{}.ffn_up_exps.weight",
     RulePlace::kExpertLayers, {Dim::kFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kHidden, Dim::kFeedForward},
     RuleKind::kFusedStack, RuleNeed::kIfFused},
    {"model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kTwoFeedForward, Dim::kHidden},
     RuleKind::kFusedGateUp, RuleNeed::kIfFused, "blk.{}.ffn_up_exps.weight"},
};

// How much slower each rotary pair of Llama 3.1 turns: 1 for fast ones, `factor` for slow ones, and
// a smooth passage between. In single precision, operation by operation as the reference converter,
// whose a / b is the reciprocal of b times a.
std::vector<float> RopeFactors(const RopeSettings& rope, int64_t head_width) {
  const float base = static_cast<float>(rope.theta.value_or(10000.0));
  const double factor = rope.factor.value_or(8.0);
  const double low = rope.low_freq_factor.value_or(1.0);
  const double high = rope.high_freq_factor.value_or(4.0);
  const double context = static_cast<double>(rope.original_max_position_embeddings.value_or(8192));
  std::vector<float> factors;
  for (int64_t i = 0; i < head_width; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_width);
    const float frequency = 1.0f / std::pow(base, exponent);
    const float wavelength = (1.0f / frequency) * static_cast<float>(2.0 * M_PI);
    if (wavelength < static_cast<float>(context / high)) {
      factors.push_back(1.0f);
    } else if (wavelength > static_cast<float>(context / low)) {
      factors.push_back(static_cast<float>(factor));
    } else {
      const float turns = (1.0f / wavelength) * static_cast<float>(context);
      const float smooth = (turns - static_cast<float>(low)) / static_cast<float>(high - low);
      factors.push_back(1.0f / ((1.0f - smooth) / static_cast<float>(factor) + smooth));
    }
  }
  return factors;
}

class Llama : public Architecture {
 public:
  explicit Llama(CheckpointConfig config)
      : Llama(std::move(config), JoinRules({ModelRules(), LayerNormRules(), RotaryAttentionRules(),
                                            DenseRules()})) {}

  absl::string_view name() const override { return "llama"; }

  std::vector<OutputTensor> GeneratedTensors() const override {
    if (config_.rope.type != "llama3") return {};
    OutputTensor factors;
    factors.values = RopeFactors(config_.rope, config_.HeadWidth());
    factors.info.name = "rope_freqs.weight";
    factors.info.ne = {static_cast<int64_t>(factors.values.size())};
    return {std::move(factors)};
  }

  void AddKeys(uint32_t file_type, GgufMetadata& metadata) const override {
    Architecture::AddKeys(file_type, metadata);
    KeyWriter keys(name(), metadata);
    keys.Int("vocab_size", config_.vocab_size);
    keys.Int("rope.dimension_count", config_.HeadWidth());
  }

 protected:
  Llama(CheckpointConfig config, std::vector<NameRule> rules)
      : Architecture(std::move(config), std::move(rules)) {}
};

class Mixtral : public Llama {
 public:
  explicit Mixtral(CheckpointConfig config)
      : Llama(std::move(config), JoinRules({ModelRules(), LayerNormRules(), RotaryAttentionRules(),
                                            kMixtral})) {}
};

absl::Status CheckActivation(const nlohmann::json& config, const std::string& where) {
  return RequireSetting(config, where, "hidden_act", "silu", "GGUF's llama has no other");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> MakeLlama(const nlohmann::json& config,
                                                        const std::string& where) {
  ODMOE_RETURN_IF_ERROR(CheckActivation(config, where));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kDenseRequired));
  return std::make_unique<Llama>(std::move(read));
}

absl::StatusOr<std::unique_ptr<Architecture>> MakeMixtral(const nlohmann::json& config,
                                                          const std::string& where) {
  ODMOE_RETURN_IF_ERROR(CheckActivation(config, where));
  ODMOE_ASSIGN_OR_RETURN(CheckpointConfig read,
                         ReadCheckpointConfig(config, where, kMixtralRequired));
  return std::make_unique<Mixtral>(std::move(read));
}

}  // namespace odmoe
