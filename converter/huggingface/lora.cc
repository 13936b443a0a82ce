#include "converter/huggingface/lora.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "converter/huggingface/general_keys.h"
#include "converter/huggingface/metadata_overrides.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
constexpr char kConfigName[] = "/adapter_config.json";

// What adapter_config.json says beyond the weights.
struct LoraConfig {
  double alpha = 0.0;
  std::vector<uint64_t> invocation_tokens;  // of an activated LoRA; else empty
};

absl::Status CheckExpressible(const nlohmann::json& config, const std::string& where) {
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "peft_type", "LORA",
                                       "GGUF has no other kind of adapter"));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "use_dora", false,
                                       "GGUF has no place for DoRA's magnitudes"));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "use_rslora", false,
                                       "GGUF divides alpha by the rank, not by its root"));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "fan_in_fan_out", false,
                                       "its weights are transposed"));
  ODMOE_RETURN_IF_ERROR(RequireSetting(config, where, "alpha_pattern", nlohmann::json::object(),
                                       "GGUF has one alpha for all tensors"));
  return RequireSetting(config, where, "layer_replication", nullptr,
                        "GGUF's adapters change layers that are there");
}

absl::StatusOr<LoraConfig> ReadLoraConfig(const nlohmann::json& json, const std::string& where) {
  ODMOE_RETURN_IF_ERROR(CheckExpressible(json, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  LoraConfig config;
  ODMOE_ASSIGN_OR_RETURN(config.alpha, object.Double("lora_alpha"));
  if (object.Has("alora_invocation_tokens")) {
    ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* tokens, object.Array("alora_invocation_tokens"));
    for (const nlohmann::json& token : *tokens) {
      if (!token.is_number_unsigned() || token.get<uint64_t>() > 0x7fffffff) {
        return object.Wrong("alora_invocation_tokens", "a list of token ids");
      }
      config.invocation_tokens.push_back(token.get<uint64_t>());
    }
  } else if (object.Has("invocation_string")) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": 'invocation_string' is there without 'alora_invocation_tokens'; put the string's "
               "token ids there"));
  }
  return config;
}

// The weight that a tensor of the adapter changes, and which half of a pair the tensor is.
struct AdapterName {
  std::string base;  // "model.layers.0.self_attn.q_proj.weight"
  char half = 0;     // 'a', 'b'; 0: a whole weight
};

AdapterName ParseName(const std::string& name) {
  AdapterName parsed;
  parsed.base = absl::StrReplaceAll(name, {{"base_model.model.", ""},
                                           {".lora_A.weight", ".weight"},
                                           {".lora_B.weight", ".weight"},
                                           {".lora_embedding_A", ".weight"},
                                           {".lora_embedding_B", ".weight"}});
  if (absl::StrContains(name, ".lora_A.weight") || absl::StrContains(name, ".lora_embedding_A")) {
    parsed.half = 'a';
  } else if (absl::StrContains(name, ".lora_B.weight") ||
             absl::StrContains(name, ".lora_embedding_B")) {
    parsed.half = 'b';
  }
  return parsed;
}

struct Pair {
  std::string base;
  const CheckpointTensor* a = nullptr;  // [rank, in]
  const CheckpointTensor* b = nullptr;  // [out, rank]
};

class LoraMapper {
 public:
  LoraMapper(const Checkpoint& adapter, const Architecture& architecture)
      : adapter_(adapter), architecture_(architecture), config_(architecture.config()) {}

  absl::StatusOr<std::vector<OutputTensor>> Map();

 private:
  struct Match {
    const NameRule* rule = nullptr;
    std::vector<int32_t> numbers;
  };
  // A layer's pairs of one expert matrix, by expert.
  using Stack = std::map<int32_t, const Pair*>;

  absl::Status Gather();
  absl::Status MapPair(const Pair& pair);
  absl::Status MapNorm(const std::string& base, const CheckpointTensor& tensor);
  absl::StatusOr<Match> FindRule(const std::string& base, const CheckpointTensor& tensor) const;
  absl::Status CheckShapes(const NameRule& rule, const Pair& pair) const;
  absl::Status StackExpert(const Match& match, const Pair& pair);
  absl::Status EmitStack(const std::string& name, const Stack& stack);
  void Emit(std::string name, const CheckpointTensor& tensor, RowOrder order, int64_t heads);

  const Checkpoint& adapter_;
  const Architecture& architecture_;
  const CheckpointConfig& config_;
  std::vector<Pair> pairs_;
  std::map<int32_t, std::map<const NameRule*, Stack>> experts_;  // by layer
  std::vector<OutputTensor> outputs_;
};

absl::Status Refused(const CheckpointTensor& tensor, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(tensor.path(), ": tensor '", tensor.stored->name, "' ", what));
}

absl::StatusOr<LoraMapper::Match> LoraMapper::FindRule(const std::string& base,
                                                       const CheckpointTensor& tensor) const {
  for (const NameRule& rule : architecture_.rules()) {
    auto numbers = MatchName(rule.from, base);
    if (!numbers.has_value()) continue;
    const int64_t layer = numbers->empty() ? 0 : numbers->front();
    const bool known_expert =
        rule.kind != RuleKind::kStackExpert || numbers->back() < config_.num_experts;
    if (layer < config_.num_hidden_layers && known_expert && architecture_.Has(rule, layer)) {
      return Match{&rule, *std::move(numbers)};
    }
  }
  return Refused(tensor, absl::StrCat("changes '", base, "', which a ", architecture_.name(),
                                      " model of the base model's config.json does not have"));
}

absl::Status LoraMapper::CheckShapes(const NameRule& rule, const Pair& pair) const {
  const int64_t out = DimensionOf(config_, rule.shape[0]).size;
  const int64_t in = DimensionOf(config_, rule.shape[1]).size;
  const std::vector<int64_t>&a = pair.a->shape, &b = pair.b->shape;
  // The embedding's halves are those of its transpose.
  const bool embedding = rule.shape[0] == Dim::kVocabulary && rule.to == "token_embd.weight";
  const bool matches = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[0] > 0 &&
                       a[1] == (embedding ? out : in) && b[0] == (embedding ? in : out);
  if (matches) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      pair.a->path(), ": '", pair.base, "' is changed by [", absl::StrJoin(a, ", "), "] and [",
      absl::StrJoin(b, ", "), "], the base model's config.json gives [rank, ", embedding ? out : in,
      "] and [", embedding ? in : out, ", rank]: [", DimensionOf(config_, rule.shape[0]).settings,
      ", ", DimensionOf(config_, rule.shape[1]).settings, "]"));
}

void LoraMapper::Emit(std::string name, const CheckpointTensor& tensor, RowOrder order,
                      int64_t heads) {
  OutputTensor output;
  output.info.name = std::move(name);
  output.info.ne = {tensor.shape.rbegin(), tensor.shape.rend()};
  SourceRows part = WholeRows(tensor);
  part.order = order;
  if (order == RowOrder::kTransposed) std::swap(output.info.ne[0], output.info.ne[1]);
  if (order == RowOrder::kRotaryPairs) part.head_rows = tensor.shape[0] / heads;
  output.parts.push_back(part);
  outputs_.push_back(std::move(output));
}

absl::Status LoraMapper::MapPair(const Pair& pair) {
  ODMOE_ASSIGN_OR_RETURN(const Match match, FindRule(pair.base, *pair.a));
  const NameRule& rule = *match.rule;
  if (rule.to == "output.weight" && config_.tie_word_embeddings && architecture_.DropsTiedHead()) {
    return Refused(*pair.a, "changes the head, which is the embedding and is not written");
  }
  if (rule.kind == RuleKind::kSplitKeyValue) {
    return Refused(*pair.a,
                   "changes kv_b_proj, which GGUF has in two parts, one of them transposed: "
                   "no pair of low rank changes those");
  }
  if (rule.shape[1] == Dim::kNone || rule.shape[2] != Dim::kNone) {
    return Refused(*pair.a, absl::StrCat("changes '", pair.base, "', which is no matrix"));
  }
  ODMOE_RETURN_IF_ERROR(CheckShapes(rule, pair));
  if (rule.kind == RuleKind::kStackExpert) return StackExpert(match, pair);
  const std::string name = FillName(rule.to, match.numbers);
  const bool embedding = name == "token_embd.weight";
  Emit(name + ".lora_a", *pair.a, embedding ? RowOrder::kTransposed : RowOrder::kAsStored, 0);
  const bool rotary = rule.kind == RuleKind::kRotaryQuery || rule.kind == RuleKind::kRotaryKey;
  Emit(name + ".lora_b", *pair.b, rotary ? RowOrder::kRotaryPairs : RowOrder::kAsStored,
       rule.kind == RuleKind::kRotaryQuery ? config_.num_attention_heads : config_.KeyHeads());
  return absl::OkStatus();
}

absl::Status LoraMapper::StackExpert(const Match& match, const Pair& pair) {
  auto& layer = experts_[match.numbers[0]];
  layer[match.rule][match.numbers[1]] = &pair;
  size_t matrices = 0, rules = 0;
  for (const auto& [rule, stack] : layer) matrices += stack.size();
  for (const NameRule& rule : architecture_.rules()) rules += rule.kind == RuleKind::kStackExpert;
  // A layer's stacks are written once its last expert has come by, as the model's are.
  if (matrices < rules * static_cast<size_t>(config_.num_experts)) return absl::OkStatus();
  for (const NameRule& rule : architecture_.rules()) {
    if (rule.kind != RuleKind::kStackExpert) continue;
    ODMOE_RETURN_IF_ERROR(EmitStack(FillName(rule.to, {match.numbers[0]}), layer[&rule]));
  }
  experts_.erase(match.numbers[0]);
  return absl::OkStatus();
}

absl::Status LoraMapper::EmitStack(const std::string& name, const Stack& stack) {
  const Pair& first = *stack.begin()->second;
  for (const bool second : {false, true}) {
    const CheckpointTensor& shape = second ? *first.b : *first.a;
    OutputTensor output;
    output.info.name = name + (second ? ".lora_b" : ".lora_a");
    output.info.ne = {shape.shape[1], shape.shape[0], static_cast<int64_t>(stack.size())};
    for (const auto& [expert, pair] : stack) {
      const CheckpointTensor& tensor = second ? *pair->b : *pair->a;
      if (tensor.shape != shape.shape) {
        return Refused(tensor, absl::StrCat("has another rank than '", shape.stored->name,
                                            "'; GGUF has a layer's experts in one stack"));
      }
      output.parts.push_back(WholeRows(tensor));
    }
    outputs_.push_back(std::move(output));
  }
  return absl::OkStatus();
}

absl::Status LoraMapper::MapNorm(const std::string& base, const CheckpointTensor& tensor) {
  ODMOE_ASSIGN_OR_RETURN(const Match match, FindRule(base, tensor));
  const int64_t size = DimensionOf(config_, match.rule->shape[0]).size;
  if (tensor.shape != std::vector<int64_t>{size} || match.rule->shape[1] != Dim::kNone) {
    return Refused(tensor, absl::StrCat("has shape [", absl::StrJoin(tensor.shape, ", "),
                                        "], the base model's norm [", size, "]"));
  }
  Emit(FillName(match.rule->to, match.numbers), tensor, RowOrder::kAsStored, 0);
  return absl::OkStatus();
}

// Norms are written as they come, pairs after them.
absl::Status LoraMapper::Gather() {
  std::map<std::string, size_t> by_base;
  for (const CheckpointTensor& tensor : adapter_.tensors()) {
    const AdapterName name = ParseName(tensor.name);
    if (name.half == 0) {
      if (absl::StrContains(name.base, ".base_layer.weight")) continue;
      if (!absl::StrContains(name.base, "_layernorm") && !absl::StrContains(name.base, ".norm")) {
        return Refused(tensor, "is neither half of a LoRA pair nor a norm: GGUF's adapters hold no "
                               "whole weights. Merge the adapter into its model and convert that");
      }
      ODMOE_RETURN_IF_ERROR(MapNorm(name.base, tensor));
      continue;
    }
    const auto [place, fresh] = by_base.emplace(name.base, pairs_.size());
    if (fresh) pairs_.push_back({.base = name.base});
    (name.half == 'a' ? pairs_[place->second].a : pairs_[place->second].b) = &tensor;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<OutputTensor>> LoraMapper::Map() {
  ODMOE_RETURN_IF_ERROR(Gather());
  for (const Pair& pair : pairs_) {
    if (pair.a == nullptr || pair.b == nullptr) {
      return Refused(pair.a != nullptr ? *pair.a : *pair.b,
                     "is one half of a pair without the other");
    }
    ODMOE_RETURN_IF_ERROR(MapPair(pair));
  }
  if (!experts_.empty()) {
    const Pair& pair = *experts_.begin()->second.begin()->second.begin()->second;
    return Refused(*pair.a,
                   absl::StrCat("changes an expert of layer ", experts_.begin()->first,
                                ", not all of whose experts and matrices are changed; GGUF "
                                "has them in stacks"));
  }
  if (outputs_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(adapter_.folder(), ": the adapter changes nothing"));
  }
  return std::move(outputs_);
}

absl::Status AddKeys(FileSystem& fs, const LoraOptions& options, const LoraConfig& config,
                     GgufPlan& plan) {
  GgufMetadata& metadata = plan.header.metadata;
  metadata.Set("general.architecture", GgufValue::String(std::string(plan.architecture->name())));
  metadata.Set("general.type", GgufValue::String("adapter"));
  metadata.Set("adapter.type", GgufValue::String("lora"));
  ODMOE_RETURN_IF_ERROR(AddGeneralKeys(fs, options.folder, "", plan.header.tensors, metadata));
  metadata.Set("adapter.lora.alpha", GgufValue::F32(static_cast<float>(config.alpha)));
  if (!config.invocation_tokens.empty()) {
    metadata.Set("adapter.alora.invocation_tokens",
                 {.type = GgufType::kU32, .is_array = true, .array = config.invocation_tokens});
  }
  metadata.Set("general.quantization_version", GgufValue::U32(kQuantizationVersion));
  ODMOE_ASSIGN_OR_RETURN(const auto overrides, ReadMetadataOverrides(fs, options.metadata));
  return ApplyMetadataOverrides(overrides, metadata);
}

}  // namespace

bool LooksLikeAdapter(FileSystem& fs, const std::string& folder) {
  return fs.OpenForRead(absl::StrCat(folder, kConfigName)).ok();
}

absl::StatusOr<GgufPlan> PlanLora(FileSystem& fs, const LoraOptions& options) {
  if (options.base_model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.folder, ": a LoRA adapter; say with --base which folder has its base model's "
                        "config.json (the weights are not needed)"));
  }
  const std::string where = absl::StrCat(options.folder, kConfigName);
  ODMOE_ASSIGN_OR_RETURN(nlohmann::json json, ReadJsonFile(fs, where, kMaxConfigBytes));
  ODMOE_ASSIGN_OR_RETURN(const LoraConfig config, ReadLoraConfig(json, where));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json base, ReadModelConfigJson(fs, options.base_model));
  GgufPlan plan;
  ODMOE_ASSIGN_OR_RETURN(plan.architecture,
                         FindArchitecture(base, absl::StrCat(options.base_model, "/config.json")));
  ODMOE_ASSIGN_OR_RETURN(plan.checkpoint,
                         Checkpoint::OpenAdapter(fs, options.folder, std::move(json)));
  // Rotary pairs and shapes are the base model's; they decide the adapter's bytes too.
  plan.decisions = base.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  ODMOE_ASSIGN_OR_RETURN(plan.tensors, LoraMapper(*plan.checkpoint, *plan.architecture).Map());
  const bool half = std::any_of(
      plan.checkpoint->tensors().begin(), plan.checkpoint->tensors().end(),
      [](const CheckpointTensor& tensor) { return tensor.dtype != DType::kF32; });
  // Small as they are, adapters in F32 stay so.
  const OutType outtype =
      options.outtype == OutType::kAuto && !half ? OutType::kF32 : options.outtype;
  ODMOE_RETURN_IF_ERROR(ChooseFormats(*plan.checkpoint, outtype, plan.tensors).status());
  for (const OutputTensor& tensor : plan.tensors) plan.header.tensors.push_back(tensor.info);
  ODMOE_RETURN_IF_ERROR(AddKeys(fs, options, config, plan));
  ODMOE_RETURN_IF_ERROR(LayOut(plan));
  return plan;
}

}  // namespace odmoe
