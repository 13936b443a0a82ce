#include "converter/verify/gather_items.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/split/split.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/base_files.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"

namespace odmoe {
namespace {

using FilePtr = std::shared_ptr<const RandomAccessFile>;

constexpr char kStructure[] = "structure";

// A file that `owner` has open.
template <typename Owner>
std::function<absl::StatusOr<FilePtr>()> Opened(std::shared_ptr<Owner> owner,
                                                const RandomAccessFile& file) {
  return [owner = std::move(owner), &file]() -> absl::StatusOr<FilePtr> {
    return FilePtr(owner, &file);
  };
}

// Values are looked at where the stored dtype is one of ours.
std::optional<DType> ValuesOf(absl::string_view safetensors_dtype) {
  for (const DTypeInfo& info : AllDTypes()) {
    if (!info.safetensors.empty() && info.safetensors == safetensors_dtype) return info.dtype;
  }
  return std::nullopt;
}

// Damage is reported; what is no model at all, or not there, is the caller's mistake.
absl::StatusOr<GatheredModel> OrDamage(std::string kind, const absl::Status& status) {
  if (absl::IsDataLoss(status)) {
    GatheredModel model{.kind = std::move(kind)};
    model.damages.push_back({kStructure, status});
    return model;
  }
  return status;
}

CheckedItem ExpertItem(FileSystem& fs, ExpertId id, const ExpertLayout& layout,
                       const ExpertFile& file, std::optional<uint64_t> xxh3) {
  CheckedItem item{.name = ExpertName(id), .xxh3 = xxh3};
  item.open = [&fs, layout, file]() -> absl::StatusOr<FilePtr> {
    auto opened = fs.OpenForRead(file.path);
    if (absl::IsNotFound(opened.status())) {
      return absl::DataLossError(absl::StrCat("the expert's file is missing: ", file.path));
    }
    ODMOE_RETURN_IF_ERROR(opened.status());
    if ((*opened)->size() != file.file_bytes) {
      return absl::DataLossError(absl::StrCat(file.path, ": has ", (*opened)->size(), " bytes, ",
                                              kRegistryFile, " says ", file.file_bytes));
    }
    ODMOE_ASSIGN_OR_RETURN(auto reader, SafetensorsReader::Open(*std::move(opened)));
    ODMOE_RETURN_IF_ERROR(CheckExpertHeader(*reader, layout, file.data_offset));
    const std::shared_ptr<const SafetensorsReader> owner = std::move(reader);
    return FilePtr(owner, &owner->file());
  };
  for (ExpertPart part : kExpertParts) {
    if (!layout.has(part)) continue;
    const ExpertTensor& tensor = layout.part(part);
    item.extents.push_back({file.data_offset + tensor.offset, tensor.bytes, tensor.dtype});
  }
  return item;
}

void AddExperts(FileSystem& fs, const ExpertRegistry& registry, GatheredModel& model) {
  size_t next = 0;
  for (const LayerExperts& layer : registry.catalog.layers()) {
    for (int32_t expert = 0; expert < layer.expert_count; ++expert, ++next) {
      const std::optional<uint64_t> xxh3 =
          layer.xxh3.empty() ? std::nullopt
                             : std::optional(layer.xxh3[static_cast<size_t>(expert)]);
      model.items.push_back(ExpertItem(fs, {layer.layer, expert}, layer.layout,
                                       registry.files[next], xxh3));
    }
  }
  model.expert_count = static_cast<int64_t>(next);
}

void AddBaseTensors(const ModelIndex& index, std::shared_ptr<BaseFiles> base,
                    GatheredModel& model) {
  for (const IndexedTensor& tensor : index.tensors) {
    if (tensor.file.empty()) continue;
    model.items.push_back({.name = tensor.name,
                           .open = Opened(base, base->FileOf(tensor).file()),
                           .extents = {{tensor.offset, tensor.bytes, tensor.dtype}},
                           .xxh3 = tensor.xxh3});
  }
}

absl::StatusOr<GatheredModel> GatherModelDirectory(FileSystem& fs, const std::string& folder) {
  GatheredModel model{.kind = "model directory"};
  const auto registry = ReadExpertRegistry(folder, fs);
  if (!registry.ok()) return OrDamage(model.kind, registry.status());
  AddExperts(fs, *registry, model);
  const std::string digest = ModelDigest(registry->catalog.layers());
  if (digest != registry->catalog.model_digest()) {
    model.damages.push_back(
        {kStructure, absl::DataLossError(absl::StrCat(
                         folder, "/", kRegistryFile, ": model_digest is ",
                         registry->catalog.model_digest(), ", of its experts it is ", digest))});
  }
  // The experts can be checked without the rest.
  const auto index = ReadModelIndex(fs, folder);
  if (!index.ok()) {
    model.damages.push_back({kStructure, index.status()});
    return model;
  }
  if (index->model_digest != registry->catalog.model_digest()) {
    model.damages.push_back(
        {kStructure, absl::DataLossError(absl::StrCat(
                         folder, "/", kMetadataFile, ": model_digest is ", index->model_digest,
                         ", in ", kRegistryFile, " ", registry->catalog.model_digest()))});
  }
  auto base = BaseFiles::Open(fs, folder, *index);
  if (!base.ok()) {
    model.damages.push_back({kStructure, base.status()});
    return model;
  }
  AddBaseTensors(*index, std::make_shared<BaseFiles>(*std::move(base)), model);
  return model;
}

// As many scores and types as tokens, of the types that readers expect.
absl::Status CheckVocabulary(const GgufModel& model) {
  const GgufMetadata& metadata = model.metadata();
  const GgufValue* tokens = metadata.Find("tokenizer.ggml.tokens");
  if (tokens == nullptr) return absl::OkStatus();
  struct Companion {
    const char* key;
    GgufType type;
  };
  constexpr Companion kCompanions[] = {{"tokenizer.ggml.scores", GgufType::kF32},
                                       {"tokenizer.ggml.token_type", GgufType::kI32}};
  if (!tokens->is_array || tokens->type != GgufType::kString) {
    return absl::DataLossError(
        absl::StrCat(model.path(), ": tokenizer.ggml.tokens should be an array of strings"));
  }
  for (const Companion& companion : kCompanions) {
    const GgufValue* value = metadata.Find(companion.key);
    if (value == nullptr) continue;
    if (!value->is_array || value->type != companion.type || value->size() != tokens->size()) {
      return absl::DataLossError(absl::StrCat(
          model.path(), ": ", companion.key, " should be an array of ", tokens->size(), " ",
          GgufTypeName(companion.type), " and is ", value->is_array ? "an array of " : "",
          value->size(), " ", GgufTypeName(value->type)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GatheredModel> GatherGguf(FileSystem& fs, std::unique_ptr<RandomAccessFile> file) {
  auto opened = GgufModel::Open(fs, std::move(file));
  if (!opened.ok()) return OrDamage("gguf", opened.status());
  const std::shared_ptr<const GgufModel> model = *std::move(opened);
  GatheredModel gathered{.kind = "gguf"};
  for (const GgufTensor& tensor : model->tensors()) {
    const GgufModel::Place place = model->PlaceOf(tensor);
    gathered.items.push_back({.name = tensor.name,
                              .open = Opened(model, *place.file),
                              .extents = {{place.offset, tensor.bytes, tensor.dtype}}});
  }
  if (absl::Status status = CheckVocabulary(*model); !status.ok()) {
    gathered.damages.push_back({kStructure, std::move(status)});
  }
  // A dense model has nothing to split, and a vocabulary alone no tensors: neither is damage.
  const absl::Status split = PlanSplit(*model).status();
  if (absl::IsDataLoss(split) || (absl::IsNotFound(split) && !model->tensors().empty())) {
    gathered.damages.push_back({kStructure, split});
  }
  return gathered;
}

void AddSafetensors(std::shared_ptr<const void> owner, const SafetensorsReader& reader,
                    GatheredModel& gathered) {
  for (const SafetensorsTensor& tensor : reader.tensors()) {
    gathered.items.push_back(
        {.name = tensor.name,
         .open = Opened(owner, reader.file()),
         .extents = {{tensor.offset, tensor.bytes, ValuesOf(tensor.dtype)}}});
  }
}

absl::StatusOr<GatheredModel> GatherSafetensors(std::unique_ptr<RandomAccessFile> file) {
  auto opened = SafetensorsReader::Open(std::move(file));
  if (!opened.ok()) return OrDamage("safetensors", opened.status());
  const std::shared_ptr<const SafetensorsReader> reader = *std::move(opened);
  GatheredModel gathered{.kind = "safetensors"};
  AddSafetensors(reader, *reader, gathered);
  return gathered;
}

absl::StatusOr<GatheredModel> GatherCheckpoint(FileSystem& fs, const std::string& folder) {
  constexpr char kKind[] = "hugging face directory";
  auto opened = Checkpoint::Open(fs, folder);
  if (!opened.ok()) return OrDamage(kKind, opened.status());
  const std::shared_ptr<const Checkpoint> checkpoint = *std::move(opened);
  GatheredModel gathered{.kind = kKind};
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    const SafetensorsTensor& stored = *tensor.stored;
    gathered.items.push_back(
        {.name = stored.name,
         .open = Opened(checkpoint, tensor.file->file()),
         .extents = {{stored.offset, stored.bytes, ValuesOf(stored.dtype)}}});
  }
  return gathered;
}

}  // namespace

absl::StatusOr<GatheredModel> GatherItems(FileSystem& fs, const std::string& path) {
  if (fs.ListDirectory(path).ok()) {
    if (LooksLikeCheckpoint(fs, path)) return GatherCheckpoint(fs, path);
    if (fs.ListDirectory(absl::StrCat(path, "/", kExpertsFolder)).ok()) {
      return GatherModelDirectory(fs, path);
    }
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": neither a model directory (no ", kRegistryFile,
                     ") nor a Hugging Face directory (no config.json)"));
  }
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  if (absl::EndsWith(path, ".safetensors")) return GatherSafetensors(std::move(file));
  return GatherGguf(fs, std::move(file));
}

}  // namespace odmoe
