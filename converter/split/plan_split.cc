#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/split/nearest_name.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Layers that should have routed experts: those with a router or any expert tensor, and where the
// metadata counts the dense layers in front, all after them.
absl::StatusOr<std::vector<int32_t>> ExpertLayers(const GgufModel& model,
                                                  const std::string& architecture) {
  const GgufMetadata& metadata = model.metadata();
  std::map<int32_t, bool> layers;  // layer -> has routed experts
  for (const GgufTensor& tensor : model.tensors()) {
    const int32_t layer = LayerOfTensor(tensor.name);
    if (layer < 0) continue;
    layers[layer] = layers[layer] || absl::EndsWith(tensor.name, ".ffn_gate_inp.weight") ||
                    PlaceOfExpertTensor(tensor.name).has_value();
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
  if (with_experts.empty() && experts == 0) return with_experts;  // a dense model
  // A model that says it has experts and shows none: look for them in its first layer.
  if (with_experts.empty()) with_experts.push_back(layers.empty() ? 0 : layers.begin()->first);
  return with_experts;
}

absl::Status MissingExperts(const GgufModel& model, const std::vector<std::string>& missing) {
  std::vector<std::string> present;
  for (const GgufTensor& tensor : model.tensors()) present.push_back(tensor.name);
  std::vector<std::string> lines;
  // A few tell it; a model without any would list hundreds.
  constexpr size_t kShown = 6;
  for (size_t i = 0; i < std::min(missing.size(), kShown); ++i) {
    const std::string nearest = NearestName(missing[i], present);
    lines.push_back(absl::StrCat("'", missing[i], "' (nearest found: ",
                                 nearest.empty() ? "none" : absl::StrCat("'", nearest, "'"), ")"));
  }
  if (missing.size() > kShown) lines.push_back(absl::StrCat(missing.size() - kShown, " more"));
  return absl::NotFoundError(absl::StrCat(model.path(), ": expert tensors are missing: ",
                                          absl::StrJoin(lines, ", ")));
}

absl::StatusOr<std::vector<SplitLayer>> PlanLayers(const GgufModel& model,
                                                   const std::string& architecture) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int32_t> numbers, ExpertLayers(model, architecture));
  if (numbers.empty()) return std::vector<SplitLayer>{};
  const std::string count_key = absl::StrCat(architecture, ".expert_count");
  const auto expert_count = model.metadata().GetU32(count_key);
  if (!expert_count.ok()) {
    return absl::DataLossError(absl::StrCat(model.path(), ": ", expert_count.status().message(),
                                            ", which a model with expert tensors must have"));
  }
  if (*expert_count == 0 || *expert_count > ExpertCatalog::kMaxExperts) {
    return absl::DataLossError(absl::StrCat(model.path(), ": ", count_key, " is ", *expert_count,
                                            ", expected 1 to ", ExpertCatalog::kMaxExperts));
  }
  std::vector<SplitLayer> layers;
  std::vector<std::string> missing;
  for (int32_t number : numbers) {
    ODMOE_ASSIGN_OR_RETURN(
        SplitLayer layer,
        FindExperts(model, number, static_cast<int32_t>(*expert_count), missing));
    layers.push_back(std::move(layer));
  }
  if (!missing.empty()) return MissingExperts(model, missing);
  return layers;
}

// Expert tensors that no layer uses, such as a stack beside single experts, would be lost.
absl::Status CheckAllUsed(const GgufModel& model, const SplitPlan& plan) {
  absl::flat_hash_set<const GgufTensor*> used;
  for (const SplitLayer& layer : plan.layers) {
    for (const SplitPart& part : layer.parts) used.insert(part.tensors.begin(), part.tensors.end());
  }
  for (const auto& [tensor, place] : plan.expert_tensors) {
    if (used.contains(tensor)) continue;
    return absl::DataLossError(absl::StrCat(
        model.path(), ": tensor '", tensor->name,
        "' belongs to no expert: the layer has them in another form, or fewer of them"));
  }
  return absl::OkStatus();
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

std::vector<SplitBaseFile> PlanBaseFiles(const GgufModel& model) {
  std::vector<SplitBaseFile> files;
  for (absl::string_view name : {"embeddings.safetensors", "attention_layers.safetensors",
                                 "norms.safetensors", "lm_head.safetensors"}) {
    SplitBaseFile file{.name = std::string(name)};
    for (const GgufTensor& tensor : model.tensors()) {
      if (!PlaceOfExpertTensor(tensor.name) && BaseFileOf(tensor) == name) {
        file.tensors.push_back(&tensor);
      }
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

// Refuses what no registry could hold: too many experts, or layers numbered too high.
absl::StatusOr<uint64_t> CountExperts(const GgufModel& model,
                                      const std::vector<SplitLayer>& layers) {
  std::vector<LayerExperts> experts;
  for (const SplitLayer& layer : layers) {
    experts.push_back({.layer = layer.layer,
                       .expert_count = layer.expert_count,
                       .layout = layer.layout});
  }
  const auto catalog = ExpertCatalog::Create("plan", std::move(experts));
  if (!catalog.ok()) {
    return absl::DataLossError(absl::StrCat(model.path(), ": ", catalog.status().message()));
  }
  return static_cast<uint64_t>(catalog->expert_count());
}

}  // namespace

absl::StatusOr<SplitPlan> PlanSplit(const GgufModel& model) {
  SplitPlan plan;
  ODMOE_ASSIGN_OR_RETURN(plan.architecture, model.metadata().GetString("general.architecture"));
  if (model.tensors().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(model.path(), ": a vocabulary alone, without weights: nothing to split"));
  }
  ODMOE_ASSIGN_OR_RETURN(plan.layers, PlanLayers(model, plan.architecture));
  for (const GgufTensor& tensor : model.tensors()) {
    auto place = PlaceOfExpertTensor(tensor.name);
    if (place) plan.expert_tensors.emplace(&tensor, *std::move(place));
  }
  ODMOE_RETURN_IF_ERROR(CheckAllUsed(model, plan));
  plan.base_files = PlanBaseFiles(model);
  ODMOE_ASSIGN_OR_RETURN(const uint64_t experts, CountExperts(model, plan.layers));
  for (const GgufTensor& tensor : model.tensors()) plan.data_bytes += tensor.bytes;
  for (const SplitLayer& layer : plan.layers) {
    const uint64_t count = static_cast<uint64_t>(layer.expert_count);
    plan.disk_bytes += count * RoundUp(layer.layout.bytes, kExpertDataAlignment);
  }
  for (const SplitBaseFile& file : plan.base_files) {
    for (const GgufTensor* tensor : file.tensors) plan.disk_bytes += tensor->bytes;
  }
  // Headers: a page an expert; for the JSON, more than the GGUF header takes, escapes included.
  constexpr uint64_t kRegistryBytesPerExpert = 640;
  plan.disk_bytes += experts * (kExpertDataAlignment + kRegistryBytesPerExpert) +
                     4 * model.header_bytes() + kMiB;
  return plan;
}

}  // namespace odmoe
