#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/model_index_json.h"

namespace odmoe {
namespace {

constexpr char kRegistryHeaderKey[] = "__metadata__";

// A path that stays where it is put: relative, and without a way up.
bool StaysInside(absl::string_view path) {
  if (path.empty() || path[0] == '/' || absl::StrContains(path, '\0')) return false;
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

// One expert of the registry, before it is put in its layer.
struct RegistryEntry {
  ExpertId id;
  ExpertLayout layout;
  ExpertFile file;
  uint64_t xxh3 = 0;
};

absl::StatusOr<ExpertTensor> ParseExpertTensor(const JsonObject& tensors, ExpertPart part) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         tensors.Object(std::string(ExpertPartName(part)).c_str()));
  ExpertTensor tensor;
  ODMOE_ASSIGN_OR_RETURN(tensor.dtype, ReadDType(object));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, ReadShape(object));
  if (shape.size() != 2) return object.Wrong("shape", "[rows, columns]");
  tensor.rows = shape[0];
  tensor.columns = shape[1];
  ODMOE_ASSIGN_OR_RETURN(tensor.offset, object.U64("offset"));
  ODMOE_ASSIGN_OR_RETURN(tensor.bytes, object.U64("bytes"));
  return tensor;
}

absl::StatusOr<std::optional<DType>> ParseBias(const JsonObject& tensors, ExpertPart part,
                                               std::vector<ExpertTensor>& found) {
  if (!tensors.Has(std::string(ExpertPartName(part)).c_str())) return std::nullopt;
  ODMOE_ASSIGN_OR_RETURN(const ExpertTensor bias, ParseExpertTensor(tensors, part));
  found.push_back(bias);
  return bias.dtype;
}

absl::StatusOr<ExpertLayout> ParseLayout(const JsonObject& entry) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject tensors, entry.Object("tensors"));
  std::vector<ExpertTensor> found;
  for (ExpertPart part : {ExpertPart::kW1, ExpertPart::kW2, ExpertPart::kW3}) {
    ODMOE_ASSIGN_OR_RETURN(const ExpertTensor matrix, ParseExpertTensor(tensors, part));
    found.push_back(matrix);
  }
  ExpertBiases biases;
  ODMOE_ASSIGN_OR_RETURN(biases.w1, ParseBias(tensors, ExpertPart::kW1Bias, found));
  ODMOE_ASSIGN_OR_RETURN(biases.w2, ParseBias(tensors, ExpertPart::kW2Bias, found));
  ODMOE_ASSIGN_OR_RETURN(biases.w3, ParseBias(tensors, ExpertPart::kW3Bias, found));
  if (tensors.value().size() != found.size()) {
    return entry.Wrong("tensors", "w1.weight, w2.weight, w3.weight and their biases, no more");
  }
  const auto layout = MakeExpertLayout(found[0].dtype, found[1].dtype, found[2].dtype,
                                       found[0].columns, found[0].rows, biases);
  if (!layout.ok()) {
    return absl::DataLossError(absl::StrCat(entry.where(), ": ", layout.status().message()));
  }
  size_t next = 0;
  for (ExpertPart part : kExpertParts) {
    if (layout->has(part) && layout->part(part) != found[next++]) {
      return entry.Wrong("tensors", "tensors that fit each other, back to back");
    }
  }
  return *layout;
}

absl::StatusOr<RegistryEntry> ParseEntry(const std::string& key, const nlohmann::json& json,
                                         const std::string& model_directory,
                                         const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         JsonObject::From(json, absl::StrCat(where, ": ", key)));
  RegistryEntry entry;
  ODMOE_ASSIGN_OR_RETURN(const int64_t layer, object.Int("layer", 0, kMaxModelLayers - 1));
  ODMOE_ASSIGN_OR_RETURN(const int64_t expert,
                         object.Int("expert_id", 0, ExpertCatalog::kMaxExperts - 1));
  entry.id = {static_cast<int32_t>(layer), static_cast<int32_t>(expert)};
  if (ExpertName(entry.id) != key) {
    return absl::DataLossError(absl::StrCat(object.where(), ": layer ", layer, " and expert_id ",
                                            expert, " belong under ", ExpertName(entry.id)));
  }
  ODMOE_ASSIGN_OR_RETURN(entry.layout, ParseLayout(object));
  ODMOE_ASSIGN_OR_RETURN(const std::string path, object.String("path"));
  if (!StaysInside(path)) return object.Wrong("path", "a path inside the model directory");
  entry.file.path = absl::StrCat(model_directory, "/", path);
  ODMOE_ASSIGN_OR_RETURN(entry.file.file_bytes, object.U64("size"));
  ODMOE_ASSIGN_OR_RETURN(entry.file.data_offset, object.U64("data_offset"));
  if (entry.file.data_offset % kExpertDataAlignment != 0 ||
      entry.file.data_offset > entry.file.file_bytes ||
      entry.layout.bytes > entry.file.file_bytes - entry.file.data_offset) {
    return absl::DataLossError(absl::StrCat(
        object.where(), ": data_offset ", entry.file.data_offset, " and ", entry.layout.bytes,
        " bytes do not fit a file of ", entry.file.file_bytes, " bytes on a boundary of ",
        kExpertDataAlignment));
  }
  ODMOE_ASSIGN_OR_RETURN(entry.xxh3, ReadXxh3(object));
  return entry;
}

// Entries sorted by id become layers with experts 0 .. count-1 of one layout each.
absl::StatusOr<std::vector<LayerExperts>> GatherLayers(const std::vector<RegistryEntry>& entries,
                                                       const std::string& where) {
  std::vector<LayerExperts> layers;
  for (const RegistryEntry& entry : entries) {
    if (layers.empty() || layers.back().layer != entry.id.layer) {
      layers.push_back({.layer = entry.id.layer, .layout = entry.layout});
    }
    LayerExperts& layer = layers.back();
    if (entry.id.expert != layer.expert_count) {
      return absl::DataLossError(absl::StrCat(
          where, ": ", ExpertName({entry.id.layer, layer.expert_count}), " is missing"));
    }
    if (entry.layout != layer.layout) {
      return absl::DataLossError(absl::StrCat(where, ": ", ExpertName(entry.id),
                                              " differs in format or shape from the others of ",
                                              "its layer"));
    }
    ++layer.expert_count;
    layer.xxh3.push_back(entry.xxh3);
  }
  return layers;
}

std::string EncodeExpertTensor(ExpertPart part, const ExpertTensor& tensor) {
  return absl::StrFormat(R"("%s":{"dtype":"%s","shape":[%d,%d],"offset":%d,"bytes":%d})",
                         ExpertPartName(part), Info(tensor.dtype).name, tensor.rows,
                         tensor.columns, tensor.offset, tensor.bytes);
}

}  // namespace

std::string EncodeExpertRegistry(const ExpertCatalog& catalog,
                                 const std::vector<ExpertFile>& files) {
  std::string text = absl::StrFormat(
      "{\"%s\":{\"format\":\"%s\",\"version\":%d,\"model_digest\":\"%s\",\"expert_count\":%d,"
      "\"total_bytes\":%d}",
      kRegistryHeaderKey, kModelFormatName, kModelFormatVersion, catalog.model_digest(),
      catalog.expert_count(), catalog.total_bytes());
  size_t next = 0;
  for (const LayerExperts& layer : catalog.layers()) {
    const ExpertLayout& layout = layer.layout;
    std::string tensors;
    for (ExpertPart part : kExpertParts) {
      if (!layout.has(part)) continue;
      absl::StrAppend(&tensors, tensors.empty() ? "" : ",",
                      EncodeExpertTensor(part, layout.part(part)));
    }
    for (int32_t expert = 0; expert < layer.expert_count; ++expert, ++next) {
      const std::string name = ExpertName({layer.layer, expert});
      absl::StrAppendFormat(
          &text,
          ",\n\"%s\":{\"path\":\"%s/%s.safetensors\",\"size\":%d,\"layer\":%d,\"expert_id\":%d,"
          "\"data_offset\":%d,\"xxh3\":\"%016x\",\"tensors\":{%s}}",
          name, kExpertsFolder, name, files[next].file_bytes, layer.layer, expert,
          files[next].data_offset, layer.xxh3[expert], tensors);
    }
  }
  return text + "}\n";
}

absl::StatusOr<ExpertRegistry> ParseExpertRegistry(absl::string_view text,
                                                   const std::string& model_directory,
                                                   const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject header, object.Object(kRegistryHeaderKey));
  ODMOE_RETURN_IF_ERROR(CheckModelVersion(header));
  ODMOE_ASSIGN_OR_RETURN(const std::string digest, ReadModelDigest(header));
  ODMOE_ASSIGN_OR_RETURN(const int64_t expert_count,
                         header.Int("expert_count", 0, ExpertCatalog::kMaxExperts));
  std::vector<RegistryEntry> entries;
  for (const auto& [key, value] : json.items()) {
    if (key == kRegistryHeaderKey) continue;
    ODMOE_ASSIGN_OR_RETURN(RegistryEntry entry, ParseEntry(key, value, model_directory, where));
    entries.push_back(std::move(entry));
  }
  if (static_cast<int64_t>(entries.size()) != expert_count) {
    return absl::DataLossError(absl::StrCat(where, ": expert_count is ", expert_count, " and ",
                                            entries.size(), " experts are listed"));
  }
  std::sort(entries.begin(), entries.end(),
            [](const RegistryEntry& a, const RegistryEntry& b) { return a.id < b.id; });
  ODMOE_ASSIGN_OR_RETURN(std::vector<LayerExperts> layers, GatherLayers(entries, where));
  ExpertRegistry registry;
  auto catalog = ExpertCatalog::Create(digest, std::move(layers));
  if (!catalog.ok()) {
    return absl::DataLossError(absl::StrCat(where, ": ", catalog.status().message()));
  }
  registry.catalog = *std::move(catalog);
  for (RegistryEntry& entry : entries) registry.files.push_back(std::move(entry.file));
  return registry;
}

}  // namespace odmoe
