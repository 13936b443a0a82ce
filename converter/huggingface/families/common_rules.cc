#include "converter/huggingface/families/common_rules.h"

namespace odmoe {
namespace {

constexpr NameRule kModel[] = {
    {"model.embed_tokens.weight", "token_embd.weight", RulePlace::kModel,
     {Dim::kVocabulary, Dim::kHidden}},
    {"model.norm.weight", "output_norm.weight", RulePlace::kModel, {Dim::kHidden}},
    {"lm_head.weight", "output.weight", RulePlace::kModel, {Dim::kVocabulary, Dim::kHidden}},
};

constexpr NameRule kLayerNorms[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", RulePlace::kEveryLayer,
     {Dim::kHidden}},
    {"model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight",
     RulePlace::kEveryLayer, {Dim::kHidden}},
};

constexpr NameRule AttentionRule(const char* from, const char* to, std::array<Dim, 3> shape,
                                 RuleKind kind = RuleKind::kCopy,
                                 RuleNeed need = RuleNeed::kRequired) {
  return {from, to, RulePlace::kEveryLayer, shape, kind, need};
}

constexpr NameRule kAttention[] = {
    AttentionRule("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight",
                  {Dim::kQueryHeads, Dim::kHidden}),
    AttentionRule("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight",
                  {Dim::kKeyHeads, Dim::kHidden}),
    AttentionRule("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight",
                  {Dim::kKeyHeads, Dim::kHidden}),
    AttentionRule("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight",
                  {Dim::kHidden, Dim::kQueryHeads}),
    AttentionRule("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias",
                  {Dim::kQueryHeads}, RuleKind::kCopy, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", {Dim::kKeyHeads},
                  RuleKind::kCopy, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", {Dim::kKeyHeads},
                  RuleKind::kCopy, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias",
                  {Dim::kHidden}, RuleKind::kCopy, RuleNeed::kOptional),
};

constexpr NameRule kRotaryAttention[] = {
    AttentionRule("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight",
                  {Dim::kQueryHeads, Dim::kHidden}, RuleKind::kRotaryQuery),
    AttentionRule("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight",
                  {Dim::kKeyHeads, Dim::kHidden}, RuleKind::kRotaryKey),
    AttentionRule("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight",
                  {Dim::kKeyHeads, Dim::kHidden}),
    AttentionRule("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight",
                  {Dim::kHidden, Dim::kQueryHeads}),
    AttentionRule("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias",
                  {Dim::kQueryHeads}, RuleKind::kRotaryQuery, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", {Dim::kKeyHeads},
                  RuleKind::kRotaryKey, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", {Dim::kKeyHeads},
                  RuleKind::kCopy, RuleNeed::kOptional),
    AttentionRule("model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias",
                  {Dim::kHidden}, RuleKind::kCopy, RuleNeed::kOptional),
};

constexpr NameRule kHeadNorms[] = {
    AttentionRule("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight",
                  {Dim::kHead}),
    AttentionRule("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight",
                  {Dim::kHead}),
};

constexpr NameRule DenseRule(const char* from, const char* to, std::array<Dim, 3> shape,
                             RuleNeed need = RuleNeed::kRequired) {
  return {from, to, RulePlace::kDenseLayers, shape, RuleKind::kCopy, need};
}

constexpr NameRule kDense[] = {
    DenseRule("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight",
              {Dim::kFeedForward, Dim::kHidden}),
    DenseRule("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight",
              {Dim::kFeedForward, Dim::kHidden}),
    DenseRule("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight",
              {Dim::kHidden, Dim::kFeedForward}),
    DenseRule("model.layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias", {Dim::kFeedForward},
              RuleNeed::kOptional),
    DenseRule("model.layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias", {Dim::kFeedForward},
              RuleNeed::kOptional),
    DenseRule("model.layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias", {Dim::kHidden},
              RuleNeed::kOptional),
};

constexpr NameRule kRouter[] = {
    {"model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", RulePlace::kExpertLayers,
     {Dim::kExperts, Dim::kHidden}},
};

constexpr NameRule kExperts[] = {
    {"model.layers.{}.mlp.experts.{}.down_proj.weight", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kExpertFeedForward}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.{}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExpertFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.{}.up_proj.weight", "blk.{}.ffn_up_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExpertFeedForward, Dim::kHidden}, RuleKind::kStackExpert,
     RuleNeed::kUnlessFused},
    {"model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kHidden, Dim::kExpertFeedForward},
     RuleKind::kFusedStack, RuleNeed::kIfFused},
    {"model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExperts, Dim::kTwoExpertFeedForward, Dim::kHidden},
     RuleKind::kFusedGateUp, RuleNeed::kIfFused, "blk.{}.ffn_up_exps.weight"},
};

}  // namespace

absl::Span<const NameRule> ModelRules() { return kModel; }
absl::Span<const NameRule> LayerNormRules() { return kLayerNorms; }
absl::Span<const NameRule> AttentionRules() { return kAttention; }
absl::Span<const NameRule> RotaryAttentionRules() { return kRotaryAttention; }
absl::Span<const NameRule> HeadNormRules() { return kHeadNorms; }
absl::Span<const NameRule> DenseRules() { return kDense; }
absl::Span<const NameRule> RouterRules() { return kRouter; }
absl::Span<const NameRule> ExpertRules() { return kExperts; }

std::vector<NameRule> JoinRules(std::initializer_list<absl::Span<const NameRule>> tables) {
  std::vector<NameRule> rules;
  for (const auto& table : tables) rules.insert(rules.end(), table.begin(), table.end());
  return rules;
}

}  // namespace odmoe
