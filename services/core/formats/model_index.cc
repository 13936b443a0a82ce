#include "services/core/formats/model_index.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_json.h"
#include "services/core/formats/json.h"
#include "services/core/formats/model_index_json.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxJsonBytes = uint64_t{256} << 20;

absl::StatusOr<ExpertPart> FindExpertPart(const JsonObject& object, absl::string_view name) {
  for (ExpertPart part : kExpertParts) {
    if (ExpertPartName(part) == name) return part;
  }
  return object.Wrong("parts", "names of an expert's tensors, such as 'w1.weight'");
}

// What a tensor holds of the experts of its layer.
absl::Status ReadExpertPlace(const JsonObject& object, IndexedTensor& tensor) {
  ODMOE_ASSIGN_OR_RETURN(const int64_t layer,
                         object.Int("experts_of_layer", 0, kMaxModelLayers - 1));
  tensor.expert_layer = static_cast<int32_t>(layer);
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* parts, object.Array("parts"));
  if (parts->empty() || parts->size() > 2) return object.Wrong("parts", "one or two names");
  for (const nlohmann::json& part : *parts) {
    if (!part.is_string()) return object.Wrong("parts", "an array of strings");
    ODMOE_ASSIGN_OR_RETURN(const ExpertPart found,
                           FindExpertPart(object, part.get<std::string>()));
    tensor.expert_parts.push_back(found);
  }
  if (object.Has("expert")) {
    ODMOE_ASSIGN_OR_RETURN(const int64_t expert,
                           object.Int("expert", 0, ExpertCatalog::kMaxExperts - 1));
    tensor.expert = static_cast<int32_t>(expert);
  }
  return absl::OkStatus();
}

absl::StatusOr<IndexedTensor> ParseIndexedTensor(const nlohmann::json& json,
                                                 const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, where));
  IndexedTensor tensor;
  ODMOE_ASSIGN_OR_RETURN(tensor.name, object.String("name"));
  ODMOE_ASSIGN_OR_RETURN(tensor.dtype, ReadDType(object));
  ODMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> shape, ReadShape(object));
  tensor.ne = ReversedShape(shape);
  const auto bytes = GgufTensorBytes(tensor.dtype, tensor.ne);
  if (!bytes.ok()) {
    return absl::DataLossError(
        absl::StrCat(where, ": tensor '", tensor.name, "': ", bytes.status().message()));
  }
  tensor.bytes = *bytes;
  if (object.Has("experts_of_layer")) {
    ODMOE_RETURN_IF_ERROR(ReadExpertPlace(object, tensor));
    return tensor;
  }
  ODMOE_ASSIGN_OR_RETURN(tensor.file, object.String("file"));
  if (!IsPlainName(tensor.file)) return object.Wrong("file", "a file name");
  ODMOE_ASSIGN_OR_RETURN(tensor.offset, object.U64("offset"));
  if (object.Has("xxh3")) {
    ODMOE_ASSIGN_OR_RETURN(tensor.xxh3, ReadXxh3(object));
  }
  return tensor;
}

// Bytes between tensors, in hex. They lie behind one another, inside the file.
absl::StatusOr<std::vector<GgufPadding>> ReadPadding(const JsonObject& gguf, uint64_t gguf_bytes) {
  std::vector<GgufPadding> padding;
  if (!gguf.Has("padding")) return padding;
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* array, gguf.Array("padding"));
  uint64_t end = 0;
  for (const nlohmann::json& element : *array) {
    ODMOE_ASSIGN_OR_RETURN(const JsonObject object,
                           JsonObject::From(element, absl::StrCat(gguf.where(), ": padding")));
    GgufPadding piece;
    ODMOE_ASSIGN_OR_RETURN(piece.offset, object.U64("offset"));
    ODMOE_ASSIGN_OR_RETURN(const std::string hex, object.String("hex"));
    if (hex.empty() || hex.size() % 2 != 0 ||
        !std::all_of(hex.begin(), hex.end(),
                     [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); })) {
      return object.Wrong("hex", "pairs of hex digits");
    }
    piece.bytes = absl::HexStringToBytes(hex);
    if (piece.offset < end || piece.offset > gguf_bytes ||
        piece.bytes.size() > gguf_bytes - piece.offset) {
      return object.Wrong("offset", "behind the one before and inside the file");
    }
    end = piece.offset + piece.bytes.size();
    padding.push_back(std::move(piece));
  }
  return padding;
}

std::string EncodePadding(const std::vector<GgufPadding>& padding) {
  if (padding.empty()) return "";
  return absl::StrCat(",\"padding\":[",
                      absl::StrJoin(padding, ",",
                                    [](std::string* text, const GgufPadding& piece) {
                                      absl::StrAppend(text, "{\"offset\":", piece.offset,
                                                      ",\"hex\":\"",
                                                      absl::BytesToHexString(piece.bytes), "\"}");
                                    }),
                      "]");
}

// Where a tensor's bytes are, as members of its object.
std::string EncodePlace(const IndexedTensor& tensor) {
  if (!tensor.file.empty()) {
    std::string text =
        absl::StrCat("\"file\":\"", tensor.file, "\",\"offset\":", tensor.offset);
    if (tensor.xxh3) absl::StrAppendFormat(&text, ",\"xxh3\":\"%016x\"", *tensor.xxh3);
    return text;
  }
  std::string text =
      absl::StrCat("\"experts_of_layer\":", tensor.expert_layer, ",\"parts\":[",
                   absl::StrJoin(tensor.expert_parts, ",",
                                 [](std::string* out, ExpertPart part) {
                                   absl::StrAppend(out, "\"", ExpertPartName(part), "\"");
                                 }),
                   "]");
  if (tensor.expert >= 0) absl::StrAppend(&text, ",\"expert\":", tensor.expert);
  return text;
}

}  // namespace

absl::StatusOr<std::string> EncodeModelIndex(const ModelIndex& index) {
  std::string text = absl::StrFormat(
      "{\"format\":\"%s\",\"version\":%d,\"model_digest\":\"%s\",\n"
      "\"gguf\":{\"version\":%d,\"alignment\":%d,\"bytes\":%d%s},\n\"metadata\":",
      kModelFormatName, kModelFormatVersion, index.model_digest, index.gguf_version,
      index.gguf_alignment, index.gguf_bytes, EncodePadding(index.gguf_padding));
  absl::StrAppend(&text, EncodeGgufMetadata(index.metadata), ",\n\"tensors\":[");
  absl::string_view separator = "\n ";
  for (const IndexedTensor& tensor : index.tensors) {
    ODMOE_ASSIGN_OR_RETURN(const std::string name, JsonQuote(tensor.name));
    absl::StrAppend(&text, separator, "{\"name\":", name, ",\"dtype\":\"",
                    Info(tensor.dtype).name, "\",\"shape\":[",
                    absl::StrJoin(ReversedShape(tensor.ne), ","), "],");
    absl::StrAppend(&text, EncodePlace(tensor), "}");
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
  ODMOE_RETURN_IF_ERROR(CheckModelVersion(object));
  ModelIndex index;
  ODMOE_ASSIGN_OR_RETURN(index.model_digest, ReadModelDigest(object));
  ODMOE_ASSIGN_OR_RETURN(const JsonObject gguf, object.Object("gguf"));
  ODMOE_ASSIGN_OR_RETURN(const int64_t version, gguf.Int("version", 2, 3));
  ODMOE_ASSIGN_OR_RETURN(const int64_t alignment, gguf.Int("alignment", 1, kMaxGgufAlignment));
  index.gguf_version = static_cast<uint32_t>(version);
  index.gguf_alignment = static_cast<uint32_t>(alignment);
  ODMOE_ASSIGN_OR_RETURN(index.gguf_bytes, gguf.U64("bytes"));
  ODMOE_ASSIGN_OR_RETURN(index.gguf_padding, ReadPadding(gguf, index.gguf_bytes));
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

absl::StatusOr<StoredTensor> StoreAs(const std::string& name, DType dtype,
                                     const std::vector<int64_t>& ne) {
  StoredTensor stored;
  SafetensorsTensor& tensor = stored.tensor;
  tensor.name = name;
  ODMOE_ASSIGN_OR_RETURN(tensor.bytes, GgufTensorBytes(dtype, ne));
  const DTypeInfo& info = Info(dtype);
  if (!info.safetensors.empty()) {
    tensor.dtype = std::string(info.safetensors);
    tensor.shape = ReversedShape(ne);
    return stored;
  }
  tensor.dtype = "U8";
  if (IsBitnetDType(dtype)) {  // more than rows, or none
    tensor.shape = {static_cast<int64_t>(tensor.bytes)};
  } else {
    ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(dtype, ne[0]));
    tensor.shape = {static_cast<int64_t>(tensor.bytes / row_bytes),
                    static_cast<int64_t>(row_bytes)};
  }
  stored.metadata[name + ".ggml_type"] = std::string(info.name);
  stored.metadata[name + ".shape"] = absl::StrCat("[", absl::StrJoin(ReversedShape(ne), ","), "]");
  return stored;
}

std::string ModelDigest(const std::vector<LayerExperts>& layers) {
  std::string text;
  for (const LayerExperts& layer : layers) {
    for (ExpertPart part : kExpertParts) {
      if (!layer.layout.has(part)) continue;
      const ExpertTensor& tensor = layer.layout.part(part);
      absl::StrAppend(&text, Info(tensor.dtype).name, " ", tensor.rows, " ", tensor.columns, "\n");
    }
    for (size_t expert = 0; expert < layer.xxh3.size(); ++expert) {
      absl::StrAppend(&text, layer.layer, " ", expert, " ", absl::Hex(layer.xxh3[expert]), "\n");
    }
  }
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace odmoe
