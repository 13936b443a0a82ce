#include "converter/quantize/mix_rules.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/core/formats/gguf_experts.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Parts of names, whatever their model, that keep their format.
constexpr absl::string_view kKept[] = {"_norm.weight",
                                       "ffn_gate_inp.weight",
                                       "altup",
                                       "laurel",
                                       "per_layer_model_proj",
                                       "ssm_conv1d",
                                       "shortconv.conv.weight",
                                       "time_mix_first.weight",
                                       "time_mix_w0.weight",
                                       "time_mix_w1.weight",
                                       "time_mix_w2.weight",
                                       "time_mix_v0.weight",
                                       "time_mix_v1.weight",
                                       "time_mix_v2.weight",
                                       "time_mix_a0.weight",
                                       "time_mix_a1.weight",
                                       "time_mix_a2.weight",
                                       "time_mix_g1.weight",
                                       "time_mix_g2.weight",
                                       "time_mix_decay_w1.weight",
                                       "time_mix_decay_w2.weight",
                                       "time_mix_lerp_fused.weight",
                                       "attn_rel_b.weight",
                                       ".position_embd",
                                       "sam.pos_embd",
                                       "sam.neck.",
                                       "sam.net_",
                                       ".rel_pos",
                                       ".patch_embd",
                                       ".patch_merger"};

enum class Role { kOutput, kEmbedding, kValue, kKey, kAttentionOutput, kUp, kGate, kDown, kOther };

Role RoleOf(absl::string_view name) {
  if (IsOutputTensor(name)) return Role::kOutput;
  if (IsTokenEmbedding(name)) return Role::kEmbedding;
  constexpr std::pair<absl::string_view, Role> kRoles[] = {
      {"attn_qkv.weight", Role::kValue},
      {"attn_kv_b.weight", Role::kValue},
      {"attn_v.weight", Role::kValue},
      {"attn_k.weight", Role::kKey},
      {"attn_output.weight", Role::kAttentionOutput},
      {"ffn_up", Role::kUp},
      {"ffn_gate", Role::kGate},
      {"ffn_down", Role::kDown}};
  for (const auto& [part, role] : kRoles) {
    if (absl::StrContains(name, part)) return role;
  }
  return Role::kOther;
}

// The first and last eighth of the layers, and every third between.
bool UseMoreBits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

// A key that is one number, or one a layer, of which the first counts.
absl::StatusOr<int64_t> NumberOr(const GgufMetadata& metadata, const std::string& key,
                                 int64_t fallback) {
  const GgufValue* value = metadata.Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_array) return metadata.GetU32(key);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, metadata.GetInts(key));
  return numbers.empty() ? fallback : numbers[0];
}

// Models whose attention values are an eighth of their queries, so that more bits for them cost
// little.
bool Is70B(absl::string_view architecture, int64_t layers, int64_t experts, bool grouped) {
  if (architecture == "llama") return layers == 80 && experts != 8 && grouped;
  if (architecture == "jais2") return layers == 68;
  return layers == 80 &&
         (architecture == "qwen2" || architecture == "deci" || architecture == "olmo");
}

}  // namespace

bool IsOutputTensor(absl::string_view name) { return name == "output.weight"; }

bool IsTokenEmbedding(absl::string_view name) {
  return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

bool IsQuantizable(const GgufTensor& tensor, bool leave_output_tensor) {
  const absl::string_view name = tensor.name;
  if (tensor.ne.size() < 2 || !absl::EndsWith(name, "weight")) return false;
  if (leave_output_tensor && IsOutputTensor(name)) return false;
  if (name == "position_embd.weight" || name == "token_types.weight") return false;
  return absl::c_none_of(kKept,
                         [&](absl::string_view part) { return absl::StrContains(name, part); });
}

absl::StatusOr<MixRules> MixRules::Create(const MixRuleOptions& options,
                                          const GgufMetadata& metadata,
                                          absl::Span<const GgufTensor> tensors) {
  MixRules rules;
  rules.options_ = options;
  ODMOE_ASSIGN_OR_RETURN(const std::string architecture,
                         metadata.GetStringOr("general.architecture", ""));
  ODMOE_ASSIGN_OR_RETURN(rules.layers_, NumberOr(metadata, architecture + ".block_count", 0));
  ODMOE_ASSIGN_OR_RETURN(rules.experts_, NumberOr(metadata, architecture + ".expert_count", 0));
  ODMOE_ASSIGN_OR_RETURN(const int64_t heads,
                         NumberOr(metadata, architecture + ".attention.head_count", 0));
  ODMOE_ASSIGN_OR_RETURN(const int64_t key_heads,
                         NumberOr(metadata, architecture + ".attention.head_count_kv", heads));
  rules.queries_per_key_ = key_heads > 0 ? heads / key_heads : 0;
  rules.falcon_ = architecture == "falcon";
  rules.llama_70b_ = Is70B(architecture, rules.layers_, rules.experts_, heads != key_heads);
  for (const GgufTensor& tensor : tensors) {
    const Role role = RoleOf(tensor.name);
    if (role == Role::kValue) ++rules.attention_values_;
    if (role == Role::kOutput) rules.tied_ = false;
  }
  return rules;
}

absl::StatusOr<DType> MixRules::Next(const GgufTensor& tensor) {
  const Role role = RoleOf(tensor.name);
  if (role == Role::kOutput || (tied_ && role == Role::kEmbedding)) return Output(tensor);
  if (options_.mix == Mix::kMXFP4_MoE) return tensor.ne.size() > 2 ? DType::kMXFP4 : DType::kQ8_0;
  switch (role) {
    case Role::kEmbedding: {
      const bool ternary = options_.mix == Mix::kTQ1_0 || options_.mix == Mix::kTQ2_0;
      return ternary ? DType::kQ4_K : options_.dtype;
    }
    case Role::kValue:
      return AttentionValue();
    case Role::kKey:
      return experts_ == 8 ? DType::kQ8_0 : options_.dtype;
    case Role::kAttentionOutput:
      return AttentionOutput();
    case Role::kDown:
      return FeedForwardDown(tensor);
    case Role::kGate:
    case Role::kUp:
      ODMOE_RETURN_IF_ERROR(LayerOf(tensor, 0).status());
      return options_.dtype;
    default:
      return options_.dtype;
  }
}

DType MixRules::Output(const GgufTensor& tensor) const {
  if (options_.output_format) return *options_.output_format;
  if (options_.mix == Mix::kMXFP4_MoE || falcon_ ||
      tensor.columns() % Info(options_.dtype).block_elements != 0) {
    return DType::kQ8_0;
  }
  return options_.dtype == DType::kQ8_0 ? DType::kQ8_0 : DType::kQ6_K;
}

DType MixRules::AttentionValue() {
  const int64_t seen = values_seen_++;
  const bool shared = queries_per_key_ >= 4;
  DType dtype = options_.dtype;
  switch (options_.mix) {
    case Mix::kQ2_K:
      dtype = shared ? DType::kQ4_K : DType::kQ3_K;
      break;
    case Mix::kQ2_K_S:
      if (shared) dtype = DType::kQ4_K;
      break;
    case Mix::kQ3_K_M:
      dtype = seen < 2 ? DType::kQ5_K : DType::kQ4_K;
      break;
    case Mix::kQ3_K_L:
      dtype = DType::kQ5_K;
      break;
    case Mix::kIQ4_NL:
      if (shared) dtype = DType::kQ5_K;
      break;
    case Mix::kQ4_K_S:
      if (seen < 4) dtype = DType::kQ5_K;
      break;
    case Mix::kQ4_K_M:
    case Mix::kQ5_K_M:
      if (UseMoreBits(seen, attention_values_)) dtype = DType::kQ6_K;
      break;
    default:
      break;
  }
  if (llama_70b_ && (dtype == DType::kQ3_K || dtype == DType::kQ4_K)) dtype = DType::kQ5_K;
  // Of eight experts (Mixtral) the attention is so small a part that this is nearly free.
  return experts_ == 8 ? DType::kQ8_0 : dtype;
}

DType MixRules::AttentionOutput() const {
  if (falcon_) return options_.mix == Mix::kQ3_K_L ? DType::kQ4_K : options_.dtype;
  const bool eight = experts_ == 8;
  switch (options_.mix) {
    case Mix::kQ2_K:
      return eight ? DType::kQ5_K : DType::kQ3_K;
    case Mix::kQ3_K_M:
      return eight ? DType::kQ5_K : DType::kQ4_K;
    case Mix::kQ3_K_L:
      return eight ? options_.dtype : DType::kQ5_K;
    case Mix::kQ3_K_S:
    case Mix::kIQ4_NL:
    case Mix::kQ4_K_S:
    case Mix::kQ4_K_M:
      return eight ? DType::kQ5_K : options_.dtype;
    default:
      return options_.dtype;
  }
}

DType MixRules::FalconDown(int64_t layer) const {
  const bool first = layer < layers_ / 16, more = UseMoreBits(layer, layers_);
  switch (options_.mix) {
    case Mix::kQ3_K_M:
      return first ? DType::kQ5_K : more ? DType::kQ4_K : DType::kQ3_K;
    case Mix::kQ3_K_L:
      return DType::kQ4_K;
    case Mix::kQ4_K_M:
      return first ? DType::kQ6_K : more ? DType::kQ5_K : DType::kQ4_K;
    default:
      return options_.dtype;
  }
}

absl::StatusOr<DType> MixRules::FeedForwardDown(const GgufTensor& tensor) {
  ODMOE_ASSIGN_OR_RETURN(const int64_t layer, LayerOf(tensor, downs_seen_));
  ++downs_seen_;
  const bool first = layer < layers_ / 8, more = UseMoreBits(layer, layers_);
  switch (options_.mix) {
    case Mix::kQ2_K:
      return DType::kQ3_K;
    case Mix::kQ2_K_S:
      return first ? DType::kQ4_K : options_.dtype;
    case Mix::kQ3_K_M:
      if (falcon_) return FalconDown(layer);
      return layer < layers_ / 16 ? DType::kQ5_K : DType::kQ4_K;
    case Mix::kQ3_K_L:
      return falcon_ ? FalconDown(layer) : DType::kQ5_K;
    case Mix::kQ4_K_S:
      return first && !falcon_ ? DType::kQ5_K : options_.dtype;
    case Mix::kQ4_K_M:
      if (falcon_) return FalconDown(layer);
      return more ? DType::kQ6_K : options_.dtype;
    case Mix::kQ5_K_M:
      return more ? DType::kQ6_K : options_.dtype;
    case Mix::kIQ4_NL:
      return first && !options_.has_importance ? DType::kQ5_K : options_.dtype;
    // The first layers' outliers, weighed by importance, need a minimum beside the scale.
    case Mix::kQ4_0:
      return first && options_.has_importance ? DType::kQ4_1 : options_.dtype;
    case Mix::kQ5_0:
      return first && options_.has_importance ? DType::kQ5_1 : options_.dtype;
    default:
      return options_.dtype;
  }
}

// With experts, layers may have a feed-forward tensor each or many: the name tells which it is.
absl::StatusOr<int64_t> MixRules::LayerOf(const GgufTensor& tensor, int64_t counted) const {
  if (experts_ <= 1) return counted;
  const int64_t layer = LayerOfTensor(tensor.name);
  if (layer >= 0 && layer < layers_) return layer;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", tensor.name, "' is of no layer; the model has ", layers_));
}

}  // namespace odmoe
