#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Expert tensors that no layer uses, such as a stack beside single experts, would be lost.
absl::Status CheckAllUsed(const GgufModel& model, const SplitPlan& plan) {
  absl::flat_hash_set<const GgufTensor*> used;
  for (const GgufExpertLayer& layer : plan.layers) {
    for (const GgufExpertPart& part : layer.parts)
      used.insert(part.tensors.begin(), part.tensors.end());
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
                                      const std::vector<GgufExpertLayer>& layers) {
  std::vector<LayerExperts> experts;
  for (const GgufExpertLayer& layer : layers) {
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
  ODMOE_ASSIGN_OR_RETURN(plan.layers, FindExpertLayers(model));
  for (const GgufTensor& tensor : model.tensors()) {
    auto place = PlaceOfExpertTensor(tensor.name);
    if (place) plan.expert_tensors.emplace(&tensor, *std::move(place));
  }
  ODMOE_RETURN_IF_ERROR(CheckAllUsed(model, plan));
  plan.base_files = PlanBaseFiles(model);
  ODMOE_ASSIGN_OR_RETURN(const uint64_t experts, CountExperts(model, plan.layers));
  for (const GgufTensor& tensor : model.tensors()) plan.data_bytes += tensor.bytes;
  for (const GgufExpertLayer& layer : plan.layers) {
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
