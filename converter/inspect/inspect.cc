#include "converter/inspect/inspect.h"

#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_json.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/json.h"
#include "services/core/formats/model_index.h"

namespace odmoe {
namespace {

constexpr size_t kBriefElements = 6;
constexpr size_t kBriefBytes = 96;

// Cuts between characters, not within one.
std::string Shortened(const std::string& text) {
  if (text.size() <= kBriefBytes) return text;
  size_t end = kBriefBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "... (", text.size(), " bytes)");
}

// The first few elements of an array.
GgufValue Head(const GgufValue& value) {
  GgufValue head = value;
  std::visit([](auto& elements) { elements.resize(kBriefElements); }, head.array);
  return head;
}

InspectedKey InspectKey(const std::string& key, const GgufValue& value) {
  InspectedKey inspected{.key = key,
                         .type = std::string(GgufTypeName(value.type)),
                         .is_array = value.is_array,
                         .count = value.size(),
                         .json = EncodeGgufValue(value)};
  if (value.is_array && value.size() > kBriefElements) {
    std::string head = EncodeGgufValue(Head(value));
    head.pop_back();
    inspected.brief = absl::StrCat(Shortened(head), ", ...] (", value.size(), " elements)");
  } else {
    inspected.brief = Shortened(inspected.json);
  }
  return inspected;
}

uint64_t ElementCount(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (int64_t n : shape) count *= static_cast<uint64_t>(n);
  return count;
}

void AddMetadata(const GgufMetadata& metadata, Inspection& inspection) {
  for (const auto& [key, value] : metadata.entries()) {
    inspection.keys.push_back(InspectKey(key, value));
  }
  inspection.architecture = metadata.GetStringOr("general.architecture", "").value_or("");
}

void AddTensor(InspectedTensor tensor, Inspection& inspection) {
  inspection.tensor_bytes += tensor.bytes;
  inspection.parameter_count += ElementCount(tensor.shape);
  inspection.tensors.push_back(std::move(tensor));
}

std::string FormatOf(const ExpertLayout& layout) {
  const absl::string_view w1 = Info(layout.w1.dtype).name, w2 = Info(layout.w2.dtype).name,
                          w3 = Info(layout.w3.dtype).name;
  return w1 == w2 && w2 == w3 ? std::string(w1) : absl::StrCat(w1, ", ", w2, ", ", w3);
}

InspectedExperts InspectExperts(int32_t layer, int32_t count, const ExpertLayout& layout) {
  return {.layer = layer,
          .count = count,
          .format = FormatOf(layout),
          .dim = layout.w1.columns,
          .ffn = layout.w1.rows,
          .expert_bytes = layout.bytes};
}

absl::StatusOr<Inspection> InspectGguf(FileSystem& fs, std::unique_ptr<RandomAccessFile> file) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<GgufModel> model,
                         GgufModel::Open(fs, std::move(file)));
  const bool split = model->shards().size() > 1;
  Inspection inspection{.kind = split ? absl::StrCat("gguf in ", model->shards().size(), " shards")
                                      : "gguf"};
  AddMetadata(model->metadata(), inspection);
  for (const GgufTensor& tensor : model->tensors()) {
    const std::string& path = model->PlaceOf(tensor).file->path();
    AddTensor({.name = tensor.name,
               .format = std::string(Info(tensor.dtype).name),
               .shape = {tensor.ne.rbegin(), tensor.ne.rend()},
               .bytes = tensor.bytes,
               .file = split ? path.substr(path.rfind('/') + 1) : ""},
              inspection);
  }
  // A file we would not split can still be looked at.
  if (const auto plan = PlanSplit(*model); plan.ok()) {
    for (const GgufExpertLayer& layer : plan->layers) {
      inspection.experts.push_back(
          InspectExperts(layer.layer, layer.expert_count, layer.layout));
    }
  }
  return inspection;
}

void AddSafetensors(const SafetensorsReader& reader, const std::string& file,
                    Inspection& inspection) {
  for (const SafetensorsTensor& tensor : reader.tensors()) {
    AddTensor({.name = tensor.name,
               .format = tensor.dtype,
               .shape = tensor.shape,
               .bytes = tensor.bytes,
               .file = file},
              inspection);
  }
}

void AddJsonKey(const std::string& key, const nlohmann::json& value, Inspection& inspection) {
  InspectedKey inspected{.key = key, .type = "json"};
  inspected.json = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  inspected.brief = Shortened(inspected.json);
  if (value.is_array()) {
    inspected.is_array = true;
    inspected.count = value.size();
  }
  inspection.keys.push_back(std::move(inspected));
}

absl::StatusOr<Inspection> InspectSafetensors(std::unique_ptr<RandomAccessFile> file) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsReader> reader,
                         SafetensorsReader::Open(std::move(file)));
  Inspection inspection{.kind = "safetensors"};
  for (const auto& [key, value] : reader->metadata()) AddJsonKey(key, value, inspection);
  AddSafetensors(*reader, "", inspection);
  return inspection;
}

absl::StatusOr<Inspection> InspectHuggingFace(FileSystem& fs, const std::string& folder) {
  ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(fs, folder));
  Inspection inspection{.kind = "hugging face directory"};
  for (const auto& [key, value] : checkpoint->config().items()) AddJsonKey(key, value, inspection);
  const auto classes = checkpoint->config().find("architectures");
  if (classes != checkpoint->config().end() && classes->is_array() && !classes->empty() &&
      classes->front().is_string()) {
    inspection.architecture = classes->front().get<std::string>();
  }
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    const std::string& path = tensor.file->file().path();
    AddTensor({.name = tensor.name,
               .format = tensor.stored->dtype,
               .shape = tensor.shape,
               .bytes = tensor.stored->bytes,
               .file = path.substr(path.rfind('/') + 1)},
              inspection);
  }
  return inspection;
}

absl::StatusOr<Inspection> InspectModelDirectory(FileSystem& fs, const std::string& folder) {
  ODMOE_ASSIGN_OR_RETURN(const ExpertRegistry registry, ReadExpertRegistry(folder));
  ODMOE_ASSIGN_OR_RETURN(const ModelIndex index, ReadModelIndex(fs, folder));
  Inspection inspection{.kind = "model directory"};
  AddMetadata(index.metadata, inspection);
  for (const IndexedTensor& tensor : index.tensors) {
    if (tensor.file.empty()) continue;
    AddTensor({.name = tensor.name,
               .format = std::string(Info(tensor.dtype).name),
               .shape = {tensor.ne.rbegin(), tensor.ne.rend()},
               .bytes = tensor.bytes,
               .file = absl::StrCat(kBaseModelFolder, "/", tensor.file)},
              inspection);
  }
  inspection.tensor_bytes += registry.catalog.total_bytes();
  for (const LayerExperts& layer : registry.catalog.layers()) {
    inspection.experts.push_back(InspectExperts(layer.layer, layer.expert_count, layer.layout));
    const ExpertLayout& layout = layer.layout;
    inspection.parameter_count += static_cast<uint64_t>(layer.expert_count) * 3 *
                                  static_cast<uint64_t>(layout.w1.rows * layout.w1.columns);
  }
  return inspection;
}

absl::StatusOr<Inspection> InspectFolder(FileSystem& fs, const std::string& folder) {
  if (LooksLikeCheckpoint(fs, folder)) return InspectHuggingFace(fs, folder);
  if (fs.OpenForRead(absl::StrCat(folder, "/", kRegistryFile)).ok()) {
    return InspectModelDirectory(fs, folder);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(folder, ": neither a model directory (no ", kRegistryFile,
                   ") nor a Hugging Face directory (no config.json)"));
}

absl::StatusOr<Inspection> InspectFile(FileSystem& fs, const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  if (absl::EndsWith(path, ".safetensors")) return InspectSafetensors(std::move(file));
  auto inspection = InspectGguf(fs, std::move(file));
  if (absl::EndsWith(path, ".gguf") || !absl::IsInvalidArgument(inspection.status())) {
    return inspection;
  }
  ODMOE_ASSIGN_OR_RETURN(file, fs.OpenForRead(path));
  auto safetensors = InspectSafetensors(std::move(file));
  if (!absl::IsInvalidArgument(safetensors.status())) return safetensors;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": neither a GGUF nor a safetensors file"));
}

}  // namespace

uint64_t Inspection::expert_bytes() const {
  uint64_t bytes = 0;
  for (const InspectedExperts& layer : experts) {
    bytes += static_cast<uint64_t>(layer.count) * layer.expert_bytes;
  }
  return bytes;
}

absl::StatusOr<Inspection> InspectModel(const std::string& path, FileSystem& fs) {
  auto inspection = fs.ListDirectory(path).ok() ? InspectFolder(fs, path) : InspectFile(fs, path);
  if (inspection.ok()) inspection->path = path;
  return inspection;
}

}  // namespace odmoe
