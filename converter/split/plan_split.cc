#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/split/nearest_name.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// The layer of "blk.12.ffn_norm.weight"; -1 for tensors outside the layers.
int32_t LayerOf(absl::string_view name) {
  constexpr absl::string_view kPrefix = "blk.";
  if (!absl::StartsWith(name, kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  const size_t digits = name.find('.');
  int32_t layer = -1;
  if (digits == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, digits), &layer)) {
    return -1;
  }
  return layer;
}

std::string ExpertTensorName(int32_t layer, absl::string_view kind) {
  return absl::StrCat("blk.", layer, ".ffn_", kind, "_exps.weight");
}

bool IsStackedExperts(const GgufTensor& tensor) {
  const int32_t layer = LayerOf(tensor.name);
  if (layer < 0) return false;
  return tensor.name == ExpertTensorName(layer, "gate") ||
         tensor.name == ExpertTensorName(layer, "down") ||
         tensor.name == ExpertTensorName(layer, "up");
}

// Forms of experts that hold what an expert's file has no place for yet.
absl::Status CheckForms(const GgufReader& reader) {
  for (const GgufTensor& tensor : reader.tensors()) {
    if (LayerOf(tensor.name) < 0) continue;
    const bool biased = absl::EndsWith(tensor.name, "_exps.bias");
    const bool scaled = absl::StrContains(tensor.name, "_exps.") && !biased &&
                        !absl::EndsWith(tensor.name, "_exps.weight");
    if (biased || scaled || absl::StrContains(tensor.name, ".ffn_gate_up_exps.")) {
      return absl::UnimplementedError(absl::StrCat(
          reader.file().path(), ": tensor '", tensor.name,
          "': experts with fused gate and up, biases or scales cannot be split yet"));
    }
  }
  return absl::OkStatus();
}

// Layers that should have routed experts: those with a router or any expert tensor, and where the
// metadata counts the dense layers in front, all after them.
absl::StatusOr<std::vector<int32_t>> ExpertLayers(const GgufReader& reader,
                                                  const std::string& architecture) {
  const GgufMetadata& metadata = reader.metadata();
  std::map<int32_t, bool> layers;  // layer -> has routed experts
  for (const GgufTensor& tensor : reader.tensors()) {
    const int32_t layer = LayerOf(tensor.name);
    if (layer < 0) continue;
    layers[layer] = layers[layer] || absl::EndsWith(tensor.name, ".ffn_gate_inp.weight") ||
                    absl::StrContains(tensor.name, "_exps.");
  }
  ODMOE_ASSIGN_OR_RETURN(const uint32_t experts,
                         metadata.GetU32Or(absl::StrCat(architecture, ".expert_count"), 0));
  const std::string dense_key = absl::StrCat(architecture, ".leading_dense_block_count");
  std::vector<int32_t> with_experts;
  if (experts > 0 && metadata.Find(dense_key) != nullptr) {
    ODMOE_ASSIGN_OR_RETURN(const uint32_t dense, metadata.GetU32(dense_key));
    for (auto& [layer, has_experts] : layers) {
      if (static_cast<uint32_t>(layer) >= dense) has_experts = true;
    }
  }
  for (const auto& [layer, has_experts] : layers) {
    if (has_experts) with_experts.push_back(layer);
  }
  if (with_experts.empty() && experts == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(reader.file().path(), ": a model without routed experts (no ", architecture,
                     ".expert_count): there is nothing to split"));
  }
  // A model that says it has experts and shows none: look for them in its first layer.
  if (with_experts.empty()) with_experts.push_back(layers.empty() ? 0 : layers.begin()->first);
  return with_experts;
}

absl::Status MissingExperts(const GgufReader& reader, const std::vector<std::string>& missing) {
  std::vector<std::string> present;
  for (const GgufTensor& tensor : reader.tensors()) present.push_back(tensor.name);
  std::vector<std::string> lines;
  // A few tell it; a model without any would list hundreds.
  constexpr size_t kShown = 6;
  for (size_t i = 0; i < std::min(missing.size(), kShown); ++i) {
    const std::string nearest = NearestName(missing[i], present);
    lines.push_back(absl::StrCat("'", missing[i], "' (nearest found: ",
                                 nearest.empty() ? "none" : absl::StrCat("'", nearest, "'"), ")"));
  }
  if (missing.size() > kShown) lines.push_back(absl::StrCat(missing.size() - kShown, " more"));
  return absl::NotFoundError(absl::StrCat(reader.file().path(), ": expert tensors are missing: ",
                                          absl::StrJoin(lines, ", ")));
}

// Checks that the three stacks fit each other and the metadata, and lays out one expert.
absl::Status CheckLayer(const GgufReader& reader, uint32_t expert_count, SplitLayer& layer) {
  const auto wrong = [&](const GgufTensor& tensor, absl::string_view expected) {
    return absl::DataLossError(absl::StrCat(reader.file().path(), ": tensor '", tensor.name,
                                            "' has shape {", absl::StrJoin(tensor.ne, ", "),
                                            "}, expected ", expected));
  };
  for (const GgufTensor* tensor : {layer.w1, layer.w2, layer.w3}) {
    if (tensor->ne.size() != 3) return wrong(*tensor, "three dimensions");
    if (tensor->ne[2] != static_cast<int64_t>(expert_count)) {
      return wrong(*tensor, absl::StrCat(expert_count, " experts"));
    }
  }
  const int64_t dim = layer.w1->ne[0], ffn = layer.w1->ne[1];
  if (layer.w3->ne[0] != dim || layer.w3->ne[1] != ffn) {
    return wrong(*layer.w3, absl::StrCat("{", dim, ", ", ffn, "} for an expert, as the gate's"));
  }
  if (layer.w2->ne[0] != ffn || layer.w2->ne[1] != dim) {
    return wrong(*layer.w2, absl::StrCat("{", ffn, ", ", dim, "} for an expert"));
  }
  ODMOE_ASSIGN_OR_RETURN(
      layer.layout,
      MakeExpertLayout(layer.w1->dtype, layer.w2->dtype, layer.w3->dtype, dim, ffn));
  layer.expert_count = static_cast<int32_t>(expert_count);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SplitLayer>> PlanLayers(const GgufReader& reader,
                                                   const std::string& architecture) {
  ODMOE_RETURN_IF_ERROR(CheckForms(reader));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int32_t> numbers, ExpertLayers(reader, architecture));
  std::vector<SplitLayer> layers;
  std::vector<std::string> missing;
  for (int32_t number : numbers) {
    SplitLayer layer{.layer = number};
    for (const auto& [kind, place] : {std::pair{"gate", &layer.w1}, std::pair{"down", &layer.w2},
                                      std::pair{"up", &layer.w3}}) {
      const std::string name = ExpertTensorName(number, kind);
      *place = reader.Find(name);
      if (*place == nullptr) missing.push_back(name);
    }
    layers.push_back(layer);
  }
  if (!missing.empty()) return MissingExperts(reader, missing);
  const std::string count_key = absl::StrCat(architecture, ".expert_count");
  ODMOE_ASSIGN_OR_RETURN(const uint32_t expert_count, reader.metadata().GetU32(count_key));
  if (expert_count == 0 || expert_count > ExpertCatalog::kMaxExperts) {
    return absl::DataLossError(absl::StrCat(reader.file().path(), ": ", count_key, " is ",
                                            expert_count, ", expected 1 to ",
                                            ExpertCatalog::kMaxExperts));
  }
  for (SplitLayer& layer : layers) {
    ODMOE_RETURN_IF_ERROR(CheckLayer(reader, expert_count, layer));
  }
  return layers;
}

bool IsNorm(absl::string_view name) {
  return absl::EndsWith(name, "_norm.weight") || absl::EndsWith(name, "_norm.bias");
}

absl::string_view BaseFileOf(const GgufTensor& tensor) {
  const absl::string_view name = tensor.name;
  if (IsNorm(name)) return "norms.safetensors";
  if (absl::StartsWith(name, "token_embd.") || absl::StartsWith(name, "position_embd.") ||
      absl::StartsWith(name, "token_types.")) {
    return "embeddings.safetensors";
  }
  if (absl::StartsWith(name, "output.")) return "lm_head.safetensors";
  return "attention_layers.safetensors";
}

// Bytes an element must be aligned to for the machine to read it in place.
uint32_t NaturalAlignment(DType dtype) {
  const DTypeInfo& info = Info(dtype);
  return info.block_elements == 1 ? info.block_bytes : 2;  // a block has 16-bit scales at most
}

std::vector<SplitBaseFile> PlanBaseFiles(const GgufReader& reader) {
  std::vector<SplitBaseFile> files;
  for (absl::string_view name : {"embeddings.safetensors", "attention_layers.safetensors",
                                 "norms.safetensors", "lm_head.safetensors"}) {
    SplitBaseFile file{.name = std::string(name)};
    for (const GgufTensor& tensor : reader.tensors()) {
      if (!IsStackedExperts(tensor) && BaseFileOf(tensor) == name) file.tensors.push_back(&tensor);
    }
    // safetensors allows no gaps; with wide elements first, every tensor lies aligned without.
    std::stable_sort(file.tensors.begin(), file.tensors.end(),
                     [](const GgufTensor* a, const GgufTensor* b) {
                       return NaturalAlignment(a->dtype) > NaturalAlignment(b->dtype);
                     });
    if (!file.tensors.empty()) files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

absl::StatusOr<SplitPlan> PlanSplit(const GgufReader& reader) {
  SplitPlan plan;
  ODMOE_ASSIGN_OR_RETURN(plan.architecture, reader.metadata().GetString("general.architecture"));
  ODMOE_ASSIGN_OR_RETURN(plan.layers, PlanLayers(reader, plan.architecture));
  plan.base_files = PlanBaseFiles(reader);
  uint64_t experts = 0;
  for (const GgufTensor& tensor : reader.tensors()) plan.data_bytes += tensor.bytes;
  for (const SplitLayer& layer : plan.layers) {
    experts += static_cast<uint64_t>(layer.expert_count);
    const uint64_t count = static_cast<uint64_t>(layer.expert_count);
    plan.disk_bytes += count * RoundUp(layer.layout.bytes, kExpertDataAlignment);
  }
  for (const SplitBaseFile& file : plan.base_files) {
    for (const GgufTensor* tensor : file.tensors) plan.disk_bytes += tensor->bytes;
  }
  if (experts > static_cast<uint64_t>(ExpertCatalog::kMaxExperts)) {
    return absl::InvalidArgumentError(absl::StrCat(reader.file().path(), ": ", experts,
                                                   " experts, at most ",
                                                   ExpertCatalog::kMaxExperts));
  }
  // Headers: a page an expert; for the JSON, more than the GGUF header takes, escapes included.
  constexpr uint64_t kRegistryBytesPerExpert = 640;
  plan.disk_bytes += experts * (kExpertDataAlignment + kRegistryBytesPerExpert) +
                     4 * reader.data_offset() + kMiB;
  return plan;
}

}  // namespace odmoe
