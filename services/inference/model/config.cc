#include "services/inference/model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Far above any model known; bounds what a hostile file can make us allocate.
constexpr uint32_t kMaxLayers = 4096;
constexpr uint32_t kMaxWidth = 1 << 20;
constexpr uint32_t kMaxHeads = 1 << 12;
constexpr int64_t kMaxAttentionWidth = 1 << 22;  // of all heads together
constexpr uint32_t kMaxExpertsPerLayer = 1 << 16;
constexpr uint32_t kMaxVocabulary = 1 << 24;
constexpr uint32_t kMaxContext = 1 << 28;

// What an architecture's keys do not say.
struct ArchitectureTraits {
  absl::string_view name;
  AttentionKind attention;
  Activation activation;
  bool rope_halves;
  bool is_bitnet;  // sub-norms, 8-bit activations
};

constexpr ArchitectureTraits kArchitectures[] = {
    {"deepseek2", AttentionKind::kLatent, Activation::kSilu, false, false},
    {"bitnet", AttentionKind::kGrouped, Activation::kSilu, true, true},
    // One graph under two names: bitnet.cpp's converters write either.
    {"bitnet-b1.58", AttentionKind::kGrouped, Activation::kReluSquared, true, true},
    {"bitnet-25", AttentionKind::kGrouped, Activation::kReluSquared, true, true},
};

absl::Status ReadArchitecture(const GgufMetadata& metadata, ModelConfig& config) {
  ODMOE_ASSIGN_OR_RETURN(config.architecture, metadata.GetStringOr("general.architecture", ""));
  std::vector<absl::string_view> known;
  for (const ArchitectureTraits& traits : kArchitectures) {
    known.push_back(traits.name);
    if (traits.name != config.architecture) continue;
    config.attention = traits.attention;
    config.activation = traits.activation;
    config.rope.halves = traits.rope_halves;
    config.sub_norms = config.int8_activations = traits.is_bitnet;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("general.architecture is \"", config.architecture,
                                                 "\"; the architectures known are: ",
                                                 absl::StrJoin(known, ", ")));
}

// Reads the keys of one architecture, "deepseek2.<name>".
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string prefix)
      : metadata_(metadata), prefix_(std::move(prefix)) {}

  std::string Name(absl::string_view key) const { return absl::StrCat(prefix_, ".", key); }
  bool Has(absl::string_view key) const { return metadata_.Find(Name(key)) != nullptr; }

  absl::StatusOr<int32_t> Int(absl::string_view key, uint32_t low, uint32_t high) const {
    absl::StatusOr<uint32_t> value = metadata_.GetU32(Name(key));
    if (absl::IsNotFound(value.status())) {
      return absl::InvalidArgumentError(absl::StrCat("missing key ", Name(key)));
    }
    if (!value.ok()) return value.status();
    return InRange(key, *value, low, high);
  }
  absl::StatusOr<int32_t> IntOr(absl::string_view key, uint32_t fallback, uint32_t low,
                                uint32_t high) const {
    if (!Has(key)) return static_cast<int32_t>(fallback);
    return Int(key, low, high);
  }
  absl::StatusOr<float> FloatOr(absl::string_view key, float fallback, float low,
                                float high) const {
    ODMOE_ASSIGN_OR_RETURN(const float value, metadata_.GetF32Or(Name(key), fallback));
    if (value >= low && value <= high) return value;
    return absl::InvalidArgumentError(
        absl::StrCat(Name(key), " is ", value, ", expected ", low, " to ", high));
  }
  absl::StatusOr<float> Float(absl::string_view key, float low, float high) const {
    if (!Has(key)) return absl::InvalidArgumentError(absl::StrCat("missing key ", Name(key)));
    return FloatOr(key, low, low, high);
  }
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool fallback) const {
    return metadata_.GetBoolOr(Name(key), fallback);
  }
  absl::StatusOr<std::string> StringOr(absl::string_view key, std::string fallback) const {
    return metadata_.GetStringOr(Name(key), std::move(fallback));
  }
  absl::Status Expect(absl::string_view key, int64_t got, int64_t expected,
                      absl::string_view why) const {
    if (got == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(Name(key), " is ", got, ", expected ", expected, " (", why, ")"));
  }

 private:
  absl::StatusOr<int32_t> InRange(absl::string_view key, uint32_t value, uint32_t low,
                                  uint32_t high) const {
    if (value >= low && value <= high) return static_cast<int32_t>(value);
    return absl::InvalidArgumentError(
        absl::StrCat(Name(key), " is ", value, ", expected ", low, " to ", high));
  }

  const GgufMetadata& metadata_;
  std::string prefix_;
};

absl::Status ReadRope(const Keys& keys, RopeConfig& rope) {
  ODMOE_ASSIGN_OR_RETURN(rope.dimensions, keys.Int("rope.dimension_count", 2, kMaxWidth));
  if (rope.dimensions % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(keys.Name("rope.dimension_count"), " is ",
                                                   rope.dimensions, ", expected an even number"));
  }
  ODMOE_ASSIGN_OR_RETURN(rope.base, keys.FloatOr("rope.freq_base", 10000.0f, 1.001f, 1e12f));
  ODMOE_ASSIGN_OR_RETURN(const std::string type, keys.StringOr("rope.scaling.type", "none"));
  if (type == "none") return absl::OkStatus();
  if (type != "linear" && type != "yarn") {
    return absl::InvalidArgumentError(absl::StrCat(keys.Name("rope.scaling.type"), " is \"", type,
                                                   "\", expected none, linear or yarn"));
  }
  ODMOE_ASSIGN_OR_RETURN(rope.factor, keys.Float("rope.scaling.factor", 1.0f, 1e6f));
  rope.scaling = RopeConfig::Scaling::kLinear;
  if (type == "linear") return absl::OkStatus();
  rope.scaling = RopeConfig::Scaling::kYarn;
  ODMOE_ASSIGN_OR_RETURN(rope.original_context,
                         keys.Int("rope.scaling.original_context_length", 1, kMaxContext));
  ODMOE_ASSIGN_OR_RETURN(rope.beta_fast,
                         keys.FloatOr("rope.scaling.yarn_beta_fast", 32.0f, 1e-3f, 1e6f));
  ODMOE_ASSIGN_OR_RETURN(rope.beta_slow,
                         keys.FloatOr("rope.scaling.yarn_beta_slow", 1.0f, 1e-3f, 1e6f));
  ODMOE_ASSIGN_OR_RETURN(rope.extrapolation,
                         keys.FloatOr("rope.scaling.yarn_ext_factor", 1.0f, 0.0f, 1.0f));
  ODMOE_ASSIGN_OR_RETURN(rope.attention_factor,
                         keys.FloatOr("rope.scaling.yarn_attn_factor", 1.0f, 1e-3f, 1e3f));
  ODMOE_ASSIGN_OR_RETURN(rope.log_multiplier,
                         keys.FloatOr("rope.scaling.yarn_log_multiplier", 0.0f, 0.0f, 10.0f));
  return absl::OkStatus();
}

absl::Status ReadGroupedAttention(const Keys& keys, ModelConfig& config) {
  ODMOE_ASSIGN_OR_RETURN(
      config.kv_heads, keys.IntOr("attention.head_count_kv", config.heads, 1, config.heads));
  if (config.heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys.Name("attention.head_count_kv"), " is ", config.kv_heads,
                     ", which does not divide ", config.heads, " heads"));
  }
  const uint32_t width = static_cast<uint32_t>(config.dim / config.heads);
  ODMOE_ASSIGN_OR_RETURN(const int32_t key,
                         keys.IntOr("attention.key_length", width, 2, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(config.value, keys.IntOr("attention.value_length", width, 1, kMaxWidth));
  if (int64_t{config.heads} * std::max(key, config.value) > kMaxAttentionWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys.Name("attention.head_count"), " is ", config.heads,
                     ", too many of width ", std::max(key, config.value)));
  }
  ODMOE_RETURN_IF_ERROR(ReadRope(keys, config.rope));
  return keys.Expect("rope.dimension_count", config.rope.dimensions, key,
                     "all of a head is rotated");
}

absl::Status ReadLatentAttention(const Keys& keys, ModelConfig& config) {
  ODMOE_ASSIGN_OR_RETURN(const int32_t kv_heads,
                         keys.IntOr("attention.head_count_kv", 1, 1, kMaxHeads));
  ODMOE_RETURN_IF_ERROR(keys.Expect("attention.head_count_kv", kv_heads, 1,
                                    "the heads share one compressed key; convert the model again"));
  ODMOE_ASSIGN_OR_RETURN(config.q_lora, keys.IntOr("attention.q_lora_rank", 0, 0, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(config.kv_lora, keys.Int("attention.kv_lora_rank", 1, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(const int32_t key, keys.Int("attention.key_length_mla", 1, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(config.value, keys.Int("attention.value_length_mla", 1, kMaxWidth));
  ODMOE_RETURN_IF_ERROR(ReadRope(keys, config.rope));
  config.nope = key - config.rope.dimensions;
  if (config.nope <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys.Name("attention.key_length_mla"), " is ", key, ", expected more than ",
                     keys.Name("rope.dimension_count"), " (", config.rope.dimensions, ")"));
  }
  ODMOE_ASSIGN_OR_RETURN(const int32_t cached_key,
                         keys.Int("attention.key_length", 1, 2 * kMaxWidth));
  ODMOE_RETURN_IF_ERROR(keys.Expect("attention.key_length", cached_key, config.cache_width(),
                                    "kv_lora_rank + rope.dimension_count"));
  ODMOE_ASSIGN_OR_RETURN(const int32_t cached_value,
                         keys.Int("attention.value_length", 1, kMaxWidth));
  return keys.Expect("attention.value_length", cached_value, config.kv_lora, "kv_lora_rank");
}

absl::Status ReadGroups(const Keys& keys, RoutingConfig& routing) {
  ODMOE_ASSIGN_OR_RETURN(routing.groups, keys.IntOr("expert_group_count", 1, 0, routing.experts));
  ODMOE_ASSIGN_OR_RETURN(routing.groups_used,
                         keys.IntOr("expert_group_used_count", 1, 0, routing.experts));
  // Writers put 0 where a model has no groups.
  if (routing.groups <= 1) {
    routing.groups = routing.groups_used = 1;
    return absl::OkStatus();
  }
  if (routing.experts % routing.groups != 0 || routing.groups_used < 1 ||
      routing.groups_used > routing.groups ||
      routing.experts / routing.groups * routing.groups_used < routing.used) {
    return absl::InvalidArgumentError(absl::StrCat(
        keys.Name("expert_group_count"), " is ", routing.groups, " with ", routing.groups_used,
        " used: does not divide ", routing.experts, " experts so that ", routing.used,
        " can be chosen"));
  }
  return absl::OkStatus();
}

absl::Status ReadExperts(const Keys& keys, ModelConfig& config) {
  RoutingConfig& routing = config.routing;
  ODMOE_ASSIGN_OR_RETURN(routing.experts, keys.IntOr("expert_count", 0, 0, kMaxExpertsPerLayer));
  if (routing.experts == 0) {
    config.dense_layers = config.layers;
    return absl::OkStatus();
  }
  ODMOE_ASSIGN_OR_RETURN(routing.used, keys.Int("expert_used_count", 1, routing.experts));
  ODMOE_ASSIGN_OR_RETURN(config.expert_ffn, keys.Int("expert_feed_forward_length", 1, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(const int32_t shared, keys.IntOr("expert_shared_count", 0, 0, 64));
  if (int64_t{shared} * config.expert_ffn > kMaxWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys.Name("expert_shared_count"), " is ", shared, ", too many of width ",
                     config.expert_ffn));
  }
  config.shared_ffn = shared * config.expert_ffn;
  ODMOE_ASSIGN_OR_RETURN(config.dense_layers,
                         keys.IntOr("leading_dense_block_count", 0, 0, config.layers));
  ODMOE_ASSIGN_OR_RETURN(const int32_t gate, keys.IntOr("expert_gating_func", 1, 0, 4));
  // 0 is "not set", which mainline takes as softmax.
  if (gate > 2) {
    return absl::InvalidArgumentError(absl::StrCat(keys.Name("expert_gating_func"), " is ", gate,
                                                   ", expected 1 (softmax) or 2 (sigmoid)"));
  }
  routing.gate = gate == 2 ? RoutingConfig::Gate::kSigmoid : RoutingConfig::Gate::kSoftmax;
  ODMOE_ASSIGN_OR_RETURN(routing.normalize, keys.BoolOr("expert_weights_norm", false));
  ODMOE_ASSIGN_OR_RETURN(routing.scale, keys.FloatOr("expert_weights_scale", 1.0f, 0.0f, 1e6f));
  // Files of models without a scale carry 0, which would silence the experts.
  if (routing.scale == 0.0f) routing.scale = 1.0f;
  return ReadGroups(keys, routing);
}

}  // namespace

float ModelConfig::attention_scale() const {
  const float temperature =
      rope.scaling == RopeConfig::Scaling::kYarn
          ? 1.0f + rope.log_multiplier * std::log(rope.factor)
          : 1.0f;
  return temperature * temperature / std::sqrt(static_cast<float>(head_width()));
}

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufMetadata& metadata) {
  ModelConfig config;
  ODMOE_RETURN_IF_ERROR(ReadArchitecture(metadata, config));
  const Keys keys(metadata, config.architecture);
  ODMOE_ASSIGN_OR_RETURN(const int32_t blocks, keys.Int("block_count", 1, kMaxLayers));
  // Layers for multi-token prediction come last and take no part in plain decoding.
  ODMOE_ASSIGN_OR_RETURN(const int32_t extra, keys.IntOr("nextn_predict_layers", 0, 0, blocks - 1));
  config.layers = blocks - extra;
  ODMOE_ASSIGN_OR_RETURN(config.context, keys.Int("context_length", 1, kMaxContext));
  ODMOE_ASSIGN_OR_RETURN(config.dim, keys.Int("embedding_length", 1, kMaxWidth));
  ODMOE_ASSIGN_OR_RETURN(config.norm_epsilon,
                         keys.Float("attention.layer_norm_rms_epsilon", 0.0f, 1.0f));
  ODMOE_ASSIGN_OR_RETURN(config.vocabulary, keys.IntOr("vocab_size", 0, 0, kMaxVocabulary));
  if (config.vocabulary == 0) {
    ODMOE_ASSIGN_OR_RETURN(const std::vector<std::string>* tokens,
                           metadata.GetStrings("tokenizer.ggml.tokens"));
    if (tokens->empty() || tokens->size() > kMaxVocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.tokens has ", tokens->size(), " entries, expected 1 to ",
                       kMaxVocabulary));
    }
    config.vocabulary = static_cast<int32_t>(tokens->size());
  }
  ODMOE_ASSIGN_OR_RETURN(config.heads, keys.Int("attention.head_count", 1, kMaxHeads));
  ODMOE_RETURN_IF_ERROR(config.attention == AttentionKind::kLatent
                            ? ReadLatentAttention(keys, config)
                            : ReadGroupedAttention(keys, config));
  ODMOE_RETURN_IF_ERROR(ReadExperts(keys, config));
  if (config.sub_norms && config.routing.experts > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        keys.Name("expert_count"), " is ", config.routing.experts, ", expected 0 (",
        config.architecture, " has no experts)"));
  }
  if (config.dense_layers > 0) {
    ODMOE_ASSIGN_OR_RETURN(config.dense_ffn, keys.Int("feed_forward_length", 1, kMaxWidth));
  }
  return config;
}

}  // namespace odmoe
