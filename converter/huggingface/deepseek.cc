#include "converter/huggingface/deepseek.h"

#include <algorithm>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/huggingface/deepseek_config.h"
#include "converter/huggingface/name_rules.h"
#include "converter/split/nearest_name.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr NameRule kRules[] = {
    {"model.embed_tokens.weight", "token_embd.weight", RulePlace::kModel,
     {Dim::kVocabulary, Dim::kHidden}},
    {"model.norm.weight", "output_norm.weight", RulePlace::kModel, {Dim::kHidden}},
    {"lm_head.weight", "output.weight", RulePlace::kModel, {Dim::kVocabulary, Dim::kHidden}},
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", RulePlace::kEveryLayer,
     {Dim::kHidden}},
    {"model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", RulePlace::kEveryLayer,
     {Dim::kQueryHeads, Dim::kHidden}},
    {"model.layers.{}.self_attn.q_a_proj.weight", "blk.{}.attn_q_a.weight",
     RulePlace::kEveryLayer, {Dim::kQueryRank, Dim::kHidden}},
    {"model.layers.{}.self_attn.q_a_layernorm.weight", "blk.{}.attn_q_a_norm.weight",
     RulePlace::kEveryLayer, {Dim::kQueryRank}},
    {"model.layers.{}.self_attn.q_b_proj.weight", "blk.{}.attn_q_b.weight",
     RulePlace::kEveryLayer, {Dim::kQueryHeads, Dim::kQueryRank}},
    {"model.layers.{}.self_attn.kv_a_proj_with_mqa.weight", "blk.{}.attn_kv_a_mqa.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueLatent, Dim::kHidden}},
    {"model.layers.{}.self_attn.kv_a_layernorm.weight", "blk.{}.attn_kv_a_norm.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueRank}},
    {"model.layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_k_b.weight",
     RulePlace::kEveryLayer, {Dim::kKeyValueHeads, Dim::kKeyValueRank},
     RuleKind::kSplitKeyValue},
    {"model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight",
     RulePlace::kEveryLayer, {Dim::kHidden, Dim::kValueHeads}},
    {"model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight",
     RulePlace::kEveryLayer, {Dim::kHidden}},
    {"model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", RulePlace::kDenseLayers,
     {Dim::kFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", RulePlace::kDenseLayers,
     {Dim::kFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", RulePlace::kDenseLayers,
     {Dim::kHidden, Dim::kFeedForward}},
    {"model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", RulePlace::kExpertLayers,
     {Dim::kExperts, Dim::kHidden}},
    {"model.layers.{}.mlp.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias",
     RulePlace::kExpertLayers, {Dim::kExperts}},
    {"model.layers.{}.mlp.shared_experts.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_experts.up_proj.weight", "blk.{}.ffn_up_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kSharedFeedForward, Dim::kHidden}},
    {"model.layers.{}.mlp.shared_experts.down_proj.weight", "blk.{}.ffn_down_shexp.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kSharedFeedForward}},
    // In the order a layer's stacks are written.
    {"model.layers.{}.mlp.experts.{}.down_proj.weight", "blk.{}.ffn_down_exps.weight",
     RulePlace::kExpertLayers, {Dim::kHidden, Dim::kExpertFeedForward}, RuleKind::kStackExpert},
    {"model.layers.{}.mlp.experts.{}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExpertFeedForward, Dim::kHidden}, RuleKind::kStackExpert},
    {"model.layers.{}.mlp.experts.{}.up_proj.weight", "blk.{}.ffn_up_exps.weight",
     RulePlace::kExpertLayers, {Dim::kExpertFeedForward, Dim::kHidden}, RuleKind::kStackExpert},
};

constexpr char kValueHalfName[] = "blk.{}.attn_v_b.weight";
constexpr int kStacksPerLayer = 3;

// The layer of "model.layers.12.mlp.gate.weight"; -1 for weights outside the layers. Layers past the
// last are DeepSeek's multi-token prediction, which readers of deepseek2 do not use.
int64_t LayerOf(absl::string_view name) {
  constexpr absl::string_view kPrefix = "model.layers.";
  int64_t layer = -1;
  if (!absl::StartsWith(name, kPrefix)) return layer;
  name.remove_prefix(kPrefix.size());
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

// Weights that some checkpoints carry and no model needs.
bool IsIgnored(absl::string_view name) {
  return absl::EndsWith(name, ".rotary_emb.inv_freq") || absl::StartsWith(name, "vision_tower.") ||
         absl::StartsWith(name, "mm_projector.") || absl::StartsWith(name, "multi_modal_projector.");
}

class DeepSeek : public Architecture {
 public:
  DeepSeek(const Checkpoint& checkpoint, DeepSeekConfig config)
      : checkpoint_(checkpoint), config_(std::move(config)) {}

  absl::string_view name() const override { return "deepseek2"; }
  int64_t vocabulary_size() const override { return config_.vocab_size; }
  void AddKeys(GgufMetadata& metadata, uint32_t file_type) const override {
    AddDeepSeekKeys(config_, file_type, metadata);
  }
  absl::StatusOr<std::vector<OutputTensor>> MapTensors() const override;

 private:
  int64_t ShapeOf(Dim dim) const;
  bool Applies(const NameRule& rule, int64_t layer) const;
  absl::Status CheckShape(const NameRule& rule, const CheckpointTensor& tensor) const;
  absl::Status CheckComplete() const;
  absl::Status Emit(const NameRule& rule, const std::vector<int32_t>& numbers,
                    const CheckpointTensor& tensor, std::vector<OutputTensor>& outputs) const;
  OutputTensor StackExperts(const NameRule& rule, int32_t layer) const;
  std::vector<OutputTensor> SplitKeyValue(int32_t layer, const CheckpointTensor& tensor) const;

  const Checkpoint& checkpoint_;
  const DeepSeekConfig config_;
};

int64_t DeepSeek::ShapeOf(Dim dim) const {
  const DeepSeekConfig& c = config_;
  switch (dim) {
    case Dim::kNone:
      return 0;
    case Dim::kVocabulary:
      return c.vocab_size;
    case Dim::kHidden:
      return c.hidden_size;
    case Dim::kFeedForward:
      return c.intermediate_size;
    case Dim::kExpertFeedForward:
      return c.moe_intermediate_size;
    case Dim::kSharedFeedForward:
      return c.moe_intermediate_size * c.n_shared_experts;
    case Dim::kExperts:
      return c.n_routed_experts;
    case Dim::kQueryRank:
      return c.q_lora_rank;
    case Dim::kQueryHeads:
      return c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim);
    case Dim::kKeyValueLatent:
      return c.kv_lora_rank + c.qk_rope_head_dim;
    case Dim::kKeyValueRank:
      return c.kv_lora_rank;
    case Dim::kKeyValueHeads:
      return c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
    case Dim::kValueHeads:
      return c.num_attention_heads * c.v_head_dim;
  }
  return 0;
}

// Whether the model has this rule's weight in `layer` (any number for kModel).
bool DeepSeek::Applies(const NameRule& rule, int64_t layer) const {
  const bool dense = layer < config_.first_k_dense_replace;
  if (rule.place == RulePlace::kDenseLayers && !dense) return false;
  if (rule.place == RulePlace::kExpertLayers && dense) return false;
  if (rule.from == "lm_head.weight") return !config_.tie_word_embeddings;
  if (absl::EndsWith(rule.from, ".q_proj.weight")) return config_.q_lora_rank == 0;
  if (absl::StrContains(rule.from, "e_score_correction_bias")) return config_.has_selection_bias;
  return std::none_of(rule.shape.begin(), rule.shape.end(), [&](Dim dim) {
    return dim != Dim::kNone && ShapeOf(dim) == 0;
  });
}

absl::Status DeepSeek::CheckShape(const NameRule& rule, const CheckpointTensor& tensor) const {
  std::vector<int64_t> expected;
  for (Dim dim : rule.shape) {
    if (dim != Dim::kNone) expected.push_back(ShapeOf(dim));
  }
  if (tensor.shape == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      tensor.file->file().path(), ": tensor '", tensor.name, "' has shape [",
      absl::StrJoin(tensor.shape, ", "), "], config.json gives [", absl::StrJoin(expected, ", "),
      "]"));
}

absl::Status DeepSeek::CheckComplete() const {
  std::vector<std::string> missing;
  const auto require = [&](const NameRule& rule, const std::vector<int32_t>& numbers) {
    std::string name = FillName(rule.from, numbers);
    if (checkpoint_.Find(name) == nullptr) missing.push_back(std::move(name));
  };
  for (const NameRule& rule : kRules) {
    if (rule.place == RulePlace::kModel) {
      if (Applies(rule, 0)) require(rule, {});
      continue;
    }
    for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      if (!Applies(rule, layer)) continue;
      const int64_t count = rule.kind == RuleKind::kStackExpert ? config_.n_routed_experts : 1;
      for (int32_t expert = 0; expert < count; ++expert) require(rule, {layer, expert});
    }
  }
  if (missing.empty()) return absl::OkStatus();
  std::vector<std::string> present;
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) present.push_back(tensor.name);
  return absl::NotFoundError(absl::StrCat(
      checkpoint_.folder(), ": ", missing.size(), " tensors are missing, the first '", missing[0],
      "' (nearest found: '", NearestName(missing[0], present), "')"));
}

OutputTensor DeepSeek::StackExperts(const NameRule& rule, int32_t layer) const {
  OutputTensor output;
  output.info.name = FillName(rule.to, {layer});
  output.info.ne = {ShapeOf(rule.shape[1]), ShapeOf(rule.shape[0]), config_.n_routed_experts};
  for (int32_t expert = 0; expert < config_.n_routed_experts; ++expert) {
    const CheckpointTensor* tensor = checkpoint_.Find(FillName(rule.from, {layer, expert}));
    output.parts.push_back({.tensor = tensor, .row_count = MatrixRows(*tensor)});
  }
  return output;
}

// kv_b_proj [heads * (nope + v), rank] becomes k_b, per head [rank, nope], and v_b, per head
// [v, rank]: what absorbing the up-projections into query and output needs (DeepSeek-V2, 2.1.2).
std::vector<OutputTensor> DeepSeek::SplitKeyValue(int32_t layer,
                                                  const CheckpointTensor& tensor) const {
  const int64_t nope = config_.qk_nope_head_dim, v = config_.v_head_dim;
  const int64_t heads = config_.num_attention_heads, rank = config_.kv_lora_rank;
  OutputTensor key, value;
  key.info.name = FillName("blk.{}.attn_k_b.weight", {layer});
  key.info.ne = {nope, rank, heads};
  value.info.name = FillName(kValueHalfName, {layer});
  value.info.ne = {rank, v, heads};
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t first = head * (nope + v);
    key.parts.push_back(
        {.tensor = &tensor, .first_row = first, .row_count = nope, .transposed = true});
    value.parts.push_back({.tensor = &tensor, .first_row = first + nope, .row_count = v});
  }
  return {std::move(key), std::move(value)};
}

absl::Status DeepSeek::Emit(const NameRule& rule, const std::vector<int32_t>& numbers,
                            const CheckpointTensor& tensor,
                            std::vector<OutputTensor>& outputs) const {
  switch (rule.kind) {
    case RuleKind::kCopy: {
      OutputTensor output;
      output.info.name = FillName(rule.to, numbers);
      output.info.ne = {tensor.shape.rbegin(), tensor.shape.rend()};
      output.parts = {{.tensor = &tensor, .row_count = MatrixRows(tensor)}};
      outputs.push_back(std::move(output));
      return absl::OkStatus();
    }
    case RuleKind::kSplitKeyValue:
      for (OutputTensor& output : SplitKeyValue(numbers[0], tensor)) {
        outputs.push_back(std::move(output));
      }
      return absl::OkStatus();
    case RuleKind::kStackExpert:
      return absl::OkStatus();  // written once the layer's last expert has come by
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<OutputTensor>> DeepSeek::MapTensors() const {
  ODMOE_RETURN_IF_ERROR(CheckComplete());
  std::vector<OutputTensor> outputs;
  std::map<int32_t, int64_t> experts_seen;
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
    if (IsIgnored(tensor.name) || LayerOf(tensor.name) >= config_.num_hidden_layers) continue;
    const NameRule* rule = nullptr;
    std::vector<int32_t> numbers;
    for (const NameRule& candidate : kRules) {
      if (auto match = MatchName(candidate.from, tensor.name)) {
        rule = &candidate;
        numbers = *std::move(match);
        break;
      }
    }
    if (rule != nullptr && rule->from == "lm_head.weight" && config_.tie_word_embeddings) continue;
    const bool known_expert = rule == nullptr || rule->kind != RuleKind::kStackExpert ||
                              numbers[1] < config_.n_routed_experts;
    if (rule == nullptr || !known_expert || !Applies(*rule, numbers.empty() ? 0 : numbers[0])) {
      return absl::InvalidArgumentError(
          absl::StrCat(tensor.file->file().path(), ": tensor '", tensor.name,
                       "' has no place in a ", name(), " model of this config.json"));
    }
    ODMOE_RETURN_IF_ERROR(CheckShape(*rule, tensor));
    ODMOE_RETURN_IF_ERROR(Emit(*rule, numbers, tensor, outputs));
    if (rule->kind != RuleKind::kStackExpert) continue;
    if (++experts_seen[numbers[0]] < kStacksPerLayer * config_.n_routed_experts) continue;
    for (const NameRule& stack : kRules) {
      if (stack.kind == RuleKind::kStackExpert) outputs.push_back(StackExperts(stack, numbers[0]));
    }
  }
  return outputs;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> MakeDeepSeek(const Checkpoint& checkpoint) {
  ODMOE_ASSIGN_OR_RETURN(
      DeepSeekConfig config,
      ReadDeepSeekConfig(checkpoint.config(), absl::StrCat(checkpoint.folder(), "/config.json")));
  return std::make_unique<DeepSeek>(checkpoint, std::move(config));
}

}  // namespace odmoe
