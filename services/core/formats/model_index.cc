#include "services/core/formats/model_index.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_json.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

constexpr char kFormatName[] = "odmoe-model";
constexpr int64_t kFormatVersion = 1;
constexpr char kRegistryHeaderKey[] = "__metadata__";
constexpr uint64_t kMaxJsonBytes = uint64_t{256} << 20;
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxLayer = 1 << 16;
constexpr ExpertPart kParts[] = {ExpertPart::kW1, ExpertPart::kW2, ExpertPart::kW3};

// GGUF order to row-major and back.
std::vector<int64_t> Reversed(const std::vector<int64_t>& shape) {
  return {shape.rbegin(), shape.rend()};
}

absl::StatusOr<std::vector<int64_t>> ReadShape(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* shape, object.Array("shape"));
  std::vector<int64_t> values;
  for (const nlohmann::json& n : *shape) {
    if (!n.is_number_unsigned() || n.get<uint64_t>() > static_cast<uint64_t>(kMaxInt64)) {
      return object.Wrong("shape", "an array of non-negative integers");
    }
    values.push_back(n.get<int64_t>());
  }
  return values;
}

absl::StatusOr<DType> ReadDType(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const std::string name, object.String("dtype"));
  const auto info = FindDType(absl::string_view(name));
  if (!info.ok()) return object.Wrong("dtype", "a weight format");
  return info->dtype;
}

// Letters, digits and a few signs, so that it can stand in JSON and in a path as it is.
bool IsPlainName(absl::string_view name) {
  if (name.empty() || name[0] == '.' || name.size() > 128) return false;
  for (char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-' && c != '.') {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::string> ReadDigest(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(std::string digest, object.String("model_digest"));
  if (!IsPlainName(digest)) return object.Wrong("model_digest", "a hex digest");
  return digest;
}

absl::Status CheckVersion(const JsonObject& object) {
  ODMOE_ASSIGN_OR_RETURN(const std::string format, object.String("format"));
  if (format != kFormatName) return object.Wrong("format", absl::StrCat("'", kFormatName, "'"));
  return object.Int("version", kFormatVersion, kFormatVersion).status();
}

absl::StatusOr<ExpertPart> ReadPart(const JsonObject& object, const char* key) {
  ODMOE_ASSIGN_OR_RETURN(const std::string name, object.String(key));
  for (ExpertPart part : kParts) {
    if (ExpertPartName(part) == name) return part;
  }
  return object.Wrong(key, "'w1.weight', 'w2.weight' or 'w3.weight'");
}

absl::StatusOr<IndexedTensor> ParseIndexedTensor(const nlohmann::json& json,
                                                 const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  IndexedTensor tensor;
  ODMOE_ASSIGN_OR_RETURN(tensor.name, object.String("name"));
  ODMOE_ASSIGN_OR_RETURN(tensor.dtype, ReadDType(object));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, ReadShape(object));
  tensor.ne = Reversed(shape);
  const auto bytes = GgufTensorBytes(tensor.dtype, tensor.ne);
  if (!bytes.ok()) {
    return absl::DataLossError(
        absl::StrCat(where, ": tensor '", tensor.name, "': ", bytes.status().message()));
  }
  tensor.bytes = *bytes;
  if (object.Has("experts_of_layer")) {
    ODMOE_ASSIGN_OR_RETURN(const int64_t layer, object.Int("experts_of_layer", 0, kMaxLayer - 1));
    tensor.expert_layer = static_cast<int32_t>(layer);
    ODMOE_ASSIGN_OR_RETURN(tensor.expert_part, ReadPart(object, "part"));
    return tensor;
  }
  ODMOE_ASSIGN_OR_RETURN(tensor.file, object.String("file"));
  if (!IsPlainName(tensor.file)) return object.Wrong("file", "a file name");
  ODMOE_ASSIGN_OR_RETURN(tensor.offset, object.U64("offset"));
  return tensor;
}

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

absl::StatusOr<ExpertLayout> ParseLayout(const JsonObject& entry) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject tensors, entry.Object("tensors"));
  if (tensors.value().size() != std::size(kParts)) {
    return entry.Wrong("tensors", "w1.weight, w2.weight and w3.weight, no more");
  }
  ODMOE_ASSIGN_OR_RETURN(const ExpertTensor w1, ParseExpertTensor(tensors, ExpertPart::kW1));
  ODMOE_ASSIGN_OR_RETURN(const ExpertTensor w2, ParseExpertTensor(tensors, ExpertPart::kW2));
  ODMOE_ASSIGN_OR_RETURN(const ExpertTensor w3, ParseExpertTensor(tensors, ExpertPart::kW3));
  const auto layout = MakeExpertLayout(w1.dtype, w2.dtype, w3.dtype, w1.columns, w1.rows);
  if (!layout.ok()) {
    return absl::DataLossError(absl::StrCat(entry.where(), ": ", layout.status().message()));
  }
  if (layout->w1 != w1 || layout->w2 != w2 || layout->w3 != w3) {
    return entry.Wrong("tensors", "three matrices that fit each other, back to back");
  }
  return *layout;
}

absl::StatusOr<RegistryEntry> ParseEntry(const std::string& key, const nlohmann::json& json,
                                         const std::string& model_directory,
                                         const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                         JsonObject::From(json, absl::StrCat(where, ": ", key)));
  RegistryEntry entry;
  ODMOE_ASSIGN_OR_RETURN(const int64_t layer, object.Int("layer", 0, kMaxLayer - 1));
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
  ODMOE_ASSIGN_OR_RETURN(const std::string xxh3, object.String("xxh3"));
  if (xxh3.size() != 16 || !absl::SimpleHexAtoi(xxh3, &entry.xxh3)) {
    return object.Wrong("xxh3", "16 hex digits");
  }
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

absl::string_view ExpertPartName(ExpertPart part) {
  switch (part) {
    case ExpertPart::kW1:
      return "w1.weight";
    case ExpertPart::kW2:
      return "w2.weight";
    case ExpertPart::kW3:
      return "w3.weight";
  }
  return "";
}

absl::StatusOr<std::string> EncodeModelIndex(const ModelIndex& index) {
  std::string text = absl::StrFormat(
      "{\"format\":\"%s\",\"version\":%d,\"model_digest\":\"%s\",\n"
      "\"gguf\":{\"version\":%d,\"alignment\":%d,\"bytes\":%d},\n\"metadata\":",
      kFormatName, kFormatVersion, index.model_digest, index.gguf_version, index.gguf_alignment,
      index.gguf_bytes);
  absl::StrAppend(&text, EncodeGgufMetadata(index.metadata), ",\n\"tensors\":[");
  absl::string_view separator = "\n ";
  for (const IndexedTensor& tensor : index.tensors) {
    ODMOE_ASSIGN_OR_RETURN(const std::string name, JsonQuote(tensor.name));
    absl::StrAppend(&text, separator, "{\"name\":", name, ",\"dtype\":\"",
                    Info(tensor.dtype).name, "\",\"shape\":[",
                    absl::StrJoin(Reversed(tensor.ne), ","), "],");
    if (tensor.file.empty()) {
      absl::StrAppend(&text, "\"experts_of_layer\":", tensor.expert_layer, ",\"part\":\"",
                      ExpertPartName(tensor.expert_part), "\"}");
    } else {
      absl::StrAppend(&text, "\"file\":\"", tensor.file, "\",\"offset\":", tensor.offset, "}");
    }
    separator = ",\n ";
  }
  absl::StrAppend(&text, "\n]}\n");
  return text;
}

absl::StatusOr<ModelIndex> ReadModelIndex(FileSystem& fs, const std::string& model_directory) {
  const std::string path = absl::StrCat(model_directory, "/", kMetadataFile);
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, kMaxJsonBytes));
  return ParseModelIndex(text, path);
}

absl::StatusOr<ModelIndex> ParseModelIndex(absl::string_view text, const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, where));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  ODMOE_RETURN_IF_ERROR(CheckVersion(object));
  ModelIndex index;
  ODMOE_ASSIGN_OR_RETURN(index.model_digest, ReadDigest(object));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject gguf, object.Object("gguf"));
  ODMOE_ASSIGN_OR_RETURN(const int64_t version, gguf.Int("version", 2, 3));
  ODMOE_ASSIGN_OR_RETURN(const int64_t alignment, gguf.Int("alignment", 1, kMaxGgufAlignment));
  index.gguf_version = static_cast<uint32_t>(version);
  index.gguf_alignment = static_cast<uint32_t>(alignment);
  ODMOE_ASSIGN_OR_RETURN(index.gguf_bytes, gguf.U64("bytes"));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* metadata, object.Member("metadata"));
  ODMOE_ASSIGN_OR_RETURN(index.metadata, DecodeGgufMetadata(*metadata, where));
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* tensors, object.Array("tensors"));
  absl::flat_hash_set<std::string> seen;
  for (const nlohmann::json& element : *tensors) {
    ODMOE_ASSIGN_OR_RETURN(IndexedTensor tensor, ParseIndexedTensor(element, where));
    if (!seen.insert(tensor.name).second) {
      return absl::DataLossError(
          absl::StrCat(where, ": tensor '", tensor.name, "' is there twice"));
    }
    index.tensors.push_back(std::move(tensor));
  }
  return index;
}

std::string EncodeExpertRegistry(const ExpertCatalog& catalog,
                                 const std::vector<ExpertFile>& files) {
  std::string text = absl::StrFormat(
      "{\"%s\":{\"format\":\"%s\",\"version\":%d,\"model_digest\":\"%s\",\"expert_count\":%d,"
      "\"total_bytes\":%d}",
      kRegistryHeaderKey, kFormatName, kFormatVersion, catalog.model_digest(),
      catalog.expert_count(), catalog.total_bytes());
  size_t next = 0;
  for (const LayerExperts& layer : catalog.layers()) {
    const ExpertLayout& layout = layer.layout;
    const std::string tensors = absl::StrCat(EncodeExpertTensor(ExpertPart::kW1, layout.w1), ",",
                                             EncodeExpertTensor(ExpertPart::kW2, layout.w2), ",",
                                             EncodeExpertTensor(ExpertPart::kW3, layout.w3));
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
  ODMOE_RETURN_IF_ERROR(CheckVersion(header));
  ODMOE_ASSIGN_OR_RETURN(const std::string digest, ReadDigest(header));
  ODMOE_ASSIGN_OR_RETURN(const int64_t expert_count,
                         header.Int("expert_count", 1, ExpertCatalog::kMaxExperts));
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

absl::StatusOr<StoredTensor> StoreAs(const std::string& name, DType dtype,
                                     const std::vector<int64_t>& ne) {
  StoredTensor stored;
  SafetensorsTensor& tensor = stored.tensor;
  tensor.name = name;
  ODMOE_ASSIGN_OR_RETURN(tensor.bytes, GgufTensorBytes(dtype, ne));
  const DTypeInfo& info = Info(dtype);
  if (!info.safetensors.empty()) {
    tensor.dtype = std::string(info.safetensors);
    tensor.shape = Reversed(ne);
    return stored;
  }
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, ne[0]));
  tensor.dtype = "U8";
  tensor.shape = {static_cast<int64_t>(tensor.bytes / row_bytes), static_cast<int64_t>(row_bytes)};
  stored.metadata[name + ".ggml_type"] = std::string(info.name);
  stored.metadata[name + ".shape"] = absl::StrCat("[", absl::StrJoin(Reversed(ne), ","), "]");
  return stored;
}

std::string ModelDigest(const std::vector<LayerExperts>& layers) {
  std::string text;
  for (const LayerExperts& layer : layers) {
    for (const ExpertTensor* tensor : {&layer.layout.w1, &layer.layout.w2, &layer.layout.w3}) {
      absl::StrAppend(&text, Info(tensor->dtype).name, " ", tensor->rows, " ", tensor->columns,
                      "\n");
    }
    for (size_t expert = 0; expert < layer.xxh3.size(); ++expert) {
      absl::StrAppend(&text, layer.layer, " ", expert, " ", absl::Hex(layer.xxh3[expert]), "\n");
    }
  }
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace odmoe
