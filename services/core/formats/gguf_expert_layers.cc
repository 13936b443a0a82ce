// All layers of a model that have routed experts.
#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_experts.h"
#include "services/core/formats/nearest_name.h"

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

}  // namespace

absl::StatusOr<std::vector<GgufExpertLayer>> FindExpertLayers(const GgufModel& model) {
  ODMOE_ASSIGN_OR_RETURN(const std::string architecture,
                         model.metadata().GetString("general.architecture"));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int32_t> numbers, ExpertLayers(model, architecture));
  if (numbers.empty()) return std::vector<GgufExpertLayer>{};
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
  std::vector<GgufExpertLayer> layers;
  std::vector<std::string> missing;
  for (int32_t number : numbers) {
    ODMOE_ASSIGN_OR_RETURN(
        GgufExpertLayer layer,
        FindExperts(model, number, static_cast<int32_t>(*expert_count), missing));
    layers.push_back(std::move(layer));
  }
  if (!missing.empty()) return MissingExperts(model, missing);
  return layers;
}

}  // namespace odmoe
