#include "converter/huggingface/tensor_mapping.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/formats/nearest_name.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr absl::string_view kHeadName = "output.weight";

// The layer of "model.layers.12.mlp.gate.weight"; -1 for weights outside the layers.
int64_t LayerOf(absl::string_view name) {
  constexpr absl::string_view kPrefix = "model.layers.";
  int64_t layer = -1;
  if (!absl::StartsWith(name, kPrefix)) return layer;
  name.remove_prefix(kPrefix.size());
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

bool IsFused(const NameRule& rule) {
  return rule.kind == RuleKind::kFusedStack || rule.kind == RuleKind::kFusedGateUp;
}

// A rule and the numbers a weight's name has at its holes.
struct Match {
  const NameRule* rule = nullptr;
  std::vector<int32_t> numbers;
  int64_t layer() const { return numbers.empty() ? 0 : numbers[0]; }
};

class Mapper {
 public:
  Mapper(const Checkpoint& checkpoint, const Architecture& architecture)
      : checkpoint_(checkpoint), architecture_(architecture), config_(architecture.config()) {}

  absl::StatusOr<std::vector<OutputTensor>> Map();

 private:
  absl::Status CheckComplete() const;
  absl::Status Missing(const std::vector<std::string>& missing) const;
  void FindFusedLayers();
  bool Allows(const NameRule& rule, int64_t layer) const;
  bool Needs(const NameRule& rule, int64_t layer) const;
  bool HasOtherSpelling(const NameRule& rule, int64_t layer) const;
  absl::Status CheckShape(const NameRule& rule, const CheckpointTensor& tensor) const;
  std::optional<Match> FindRule(const CheckpointTensor& tensor) const;
  absl::Status MapOne(const CheckpointTensor& tensor);

  void Emit(const Match& match, const CheckpointTensor& tensor);
  void EmitWhole(const Match& match, const CheckpointTensor& tensor);
  void EmitRotary(const Match& match, const CheckpointTensor& tensor, int64_t heads);
  void EmitKeyValue(const Match& match, const CheckpointTensor& tensor);
  void EmitGateUp(const Match& match, const CheckpointTensor& tensor);
  void EmitStacks(int32_t layer);

  const Checkpoint& checkpoint_;
  const Architecture& architecture_;
  const CheckpointConfig& config_;
  std::set<int64_t> fused_layers_;           // whose experts are stored in one piece
  std::map<int64_t, int64_t> experts_seen_;  // by layer
  std::vector<OutputTensor> outputs_;
};

void Mapper::FindFusedLayers() {
  for (const NameRule& rule : architecture_.rules()) {
    if (!IsFused(rule)) continue;
    for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      if (checkpoint_.Find(FillName(rule.from, {layer})) != nullptr) fused_layers_.insert(layer);
    }
  }
}

// Whether a weight may be there.
bool Mapper::Allows(const NameRule& rule, int64_t layer) const {
  if (!architecture_.Has(rule, layer)) return false;
  if (rule.need == RuleNeed::kIfFused) return fused_layers_.contains(layer);
  if (rule.need == RuleNeed::kUnlessFused) return !fused_layers_.contains(layer);
  return true;
}

bool Mapper::HasOtherSpelling(const NameRule& rule, int64_t layer) const {
  const auto& rules = architecture_.rules();
  return std::any_of(rules.begin(), rules.end(), [&](const NameRule& other) {
    return other.to == rule.to && other.from != rule.from &&
           checkpoint_.Find(FillName(other.from, {static_cast<int32_t>(layer)})) != nullptr;
  });
}

// Whether it must be, for the model to be whole.
bool Mapper::Needs(const NameRule& rule, int64_t layer) const {
  if (rule.need == RuleNeed::kOptional) return false;
  if (config_.tie_word_embeddings && rule.to == kHeadName) return false;
  if (rule.need == RuleNeed::kOneSpelling && HasOtherSpelling(rule, layer)) return false;
  return Allows(rule, layer);
}

absl::Status Mapper::CheckComplete() const {
  std::vector<std::string> missing;
  const auto require = [&](const NameRule& rule, const std::vector<int32_t>& numbers) {
    std::string name = FillName(rule.from, numbers);
    if (checkpoint_.Find(name) == nullptr) missing.push_back(std::move(name));
  };
  for (const NameRule& rule : architecture_.rules()) {
    if (rule.place == RulePlace::kModel) {
      if (Needs(rule, 0)) require(rule, {});
      continue;
    }
    const int64_t experts = rule.kind == RuleKind::kStackExpert ? config_.num_experts : 1;
    for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      if (!Needs(rule, layer)) continue;
      for (int32_t expert = 0; expert < experts; ++expert) require(rule, {layer, expert});
    }
  }
  return missing.empty() ? absl::OkStatus() : Missing(missing);
}

absl::Status Mapper::Missing(const std::vector<std::string>& missing) const {
  std::vector<std::string> present;
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) present.push_back(tensor.name);
  std::string message =
      absl::StrCat(checkpoint_.folder(), ": ", missing.size(), " tensors are missing, the first '",
                   missing[0], "' (nearest found: '", NearestName(missing[0], present), "')");
  if (missing[0] == "lm_head.weight") {
    absl::StrAppend(&message,
                    ". Where the embedding is the head too, config.json should say so with "
                    "\"tie_word_embeddings\": true");
  }
  return absl::NotFoundError(message);
}

absl::Status Mapper::CheckShape(const NameRule& rule, const CheckpointTensor& tensor) const {
  std::vector<int64_t> expected;
  std::vector<absl::string_view> settings;
  for (Dim dim : rule.shape) {
    if (dim == Dim::kNone) continue;
    const Dimension dimension = DimensionOf(config_, dim);
    expected.push_back(dimension.size);
    settings.push_back(dimension.settings);
  }
  if (tensor.shape == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      tensor.path(), ": tensor '", tensor.name, "' has shape [", absl::StrJoin(tensor.shape, ", "),
      "], config.json gives [", absl::StrJoin(expected, ", "), "]: [",
      absl::StrJoin(settings, ", "), "]"));
}

std::optional<Match> Mapper::FindRule(const CheckpointTensor& tensor) const {
  for (const NameRule& rule : architecture_.rules()) {
    auto numbers = MatchName(rule.from, tensor.name);
    if (!numbers.has_value()) continue;
    Match match{&rule, *std::move(numbers)};
    const bool known_expert =
        rule.kind != RuleKind::kStackExpert || match.numbers[1] < config_.num_experts;
    if (known_expert && match.layer() < config_.num_hidden_layers &&
        Allows(rule, match.layer())) {
      return match;
    }
  }
  return std::nullopt;
}

void Mapper::EmitWhole(const Match& match, const CheckpointTensor& tensor) {
  OutputTensor output;
  output.info.name = FillName(match.rule->to, match.numbers);
  output.info.ne = {tensor.shape.rbegin(), tensor.shape.rend()};
  output.parts = {WholeRows(tensor)};
  outputs_.push_back(std::move(output));
}

void Mapper::EmitRotary(const Match& match, const CheckpointTensor& tensor, int64_t heads) {
  EmitWhole(match, tensor);
  SourceRows& part = outputs_.back().parts[0];
  part.order = RowOrder::kRotaryPairs;
  part.head_rows = tensor.shape[0] / heads;
  if (tensor.shape.size() == 1) {  // a bias: an element a row
    part.columns = 1;
    part.row_count = tensor.shape[0];
  }
}

// kv_b_proj [heads * (nope + v), rank] becomes k_b, per head [rank, nope], and v_b, per head
// [v, rank]: what absorbing the up-projections into query and output needs (DeepSeek-V2, 2.1.2).
void Mapper::EmitKeyValue(const Match& match, const CheckpointTensor& tensor) {
  const int64_t nope = config_.qk_nope_head_dim, v = config_.v_head_dim;
  const int64_t heads = config_.num_attention_heads, rank = config_.kv_lora_rank;
  OutputTensor key, value;
  key.info.name = FillName(match.rule->to, match.numbers);
  key.info.ne = {nope, rank, heads};
  value.info.name = FillName(match.rule->second, match.numbers);
  value.info.ne = {rank, v, heads};
  for (int64_t head = 0; head < heads; ++head) {
    SourceRows rows = WholeRows(tensor);
    rows.first_row = head * (nope + v);
    rows.row_count = nope;
    rows.order = RowOrder::kTransposed;
    key.parts.push_back(rows);
    rows.first_row += nope;
    rows.row_count = v;
    rows.order = RowOrder::kAsStored;
    value.parts.push_back(rows);
  }
  outputs_.push_back(std::move(key));
  outputs_.push_back(std::move(value));
}

void Mapper::EmitGateUp(const Match& match, const CheckpointTensor& tensor) {
  const int64_t experts = tensor.shape[0], width = tensor.shape[1] / 2;
  for (const bool up : {false, true}) {
    OutputTensor output;
    output.info.name = FillName(up ? match.rule->second : match.rule->to, match.numbers);
    output.info.ne = {tensor.shape[2], width, experts};
    for (int64_t expert = 0; expert < experts; ++expert) {
      SourceRows rows = WholeRows(tensor);
      rows.first_row = (2 * expert + (up ? 1 : 0)) * width;
      rows.row_count = width;
      output.parts.push_back(rows);
    }
    outputs_.push_back(std::move(output));
  }
}

void Mapper::EmitStacks(int32_t layer) {
  for (const NameRule& rule : architecture_.rules()) {
    if (rule.kind != RuleKind::kStackExpert) continue;
    OutputTensor output;
    output.info.name = FillName(rule.to, {layer});
    output.info.ne = {DimensionOf(config_, rule.shape[1]).size,
                      DimensionOf(config_, rule.shape[0]).size, config_.num_experts};
    for (int32_t expert = 0; expert < config_.num_experts; ++expert) {
      output.parts.push_back(WholeRows(*checkpoint_.Find(FillName(rule.from, {layer, expert}))));
    }
    outputs_.push_back(std::move(output));
  }
}

void Mapper::Emit(const Match& match, const CheckpointTensor& tensor) {
  switch (match.rule->kind) {
    case RuleKind::kCopy:
    case RuleKind::kFusedStack:
      return EmitWhole(match, tensor);
    case RuleKind::kRotaryQuery:
      return EmitRotary(match, tensor, config_.num_attention_heads);
    case RuleKind::kRotaryKey:
      return EmitRotary(match, tensor, config_.KeyHeads());
    case RuleKind::kFusedGateUp:
      return EmitGateUp(match, tensor);
    case RuleKind::kSplitKeyValue:
      return EmitKeyValue(match, tensor);
    case RuleKind::kStackExpert: {
      // A layer's stacks are written once its last expert has come by.
      const int64_t stacks = std::count_if(
          architecture_.rules().begin(), architecture_.rules().end(),
          [](const NameRule& rule) { return rule.kind == RuleKind::kStackExpert; });
      if (++experts_seen_[match.layer()] == stacks * config_.num_experts) {
        EmitStacks(match.numbers[0]);
      }
      return;
    }
  }
}

absl::Status Mapper::MapOne(const CheckpointTensor& tensor) {
  if (architecture_.IgnoresLayersPastTheLast() &&
      LayerOf(tensor.name) >= config_.num_hidden_layers) {
    return absl::OkStatus();
  }
  const std::optional<Match> match = FindRule(tensor);
  if (!match.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.path(), ": tensor '", tensor.name, "' has no place in a ",
                     architecture_.name(), " model of this config.json"));
  }
  const bool tied_head = match->rule->to == kHeadName && config_.tie_word_embeddings;
  if (tied_head && architecture_.DropsTiedHead()) return absl::OkStatus();
  ODMOE_RETURN_IF_ERROR(CheckShape(*match->rule, tensor));
  Emit(*match, tensor);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<OutputTensor>> Mapper::Map() {
  FindFusedLayers();
  ODMOE_RETURN_IF_ERROR(CheckComplete());
  outputs_ = architecture_.GeneratedTensors();
  for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
    ODMOE_RETURN_IF_ERROR(MapOne(tensor));
  }
  return std::move(outputs_);
}

}  // namespace

absl::StatusOr<std::vector<OutputTensor>> MapTensors(const Checkpoint& checkpoint,
                                                     const Architecture& architecture) {
  return Mapper(checkpoint, architecture).Map();
}

}  // namespace odmoe
