#include "converter/split/split.h"

#include <cstddef>
#include <map>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Where a base-model tensor goes.
struct BasePlace {
  std::string file;
  uint64_t offset = 0;
  size_t item = 0;  // of the plan's
};

// What the two JSON files need to know, gathered while the directory is laid out.
struct DirectoryLayout {
  absl::flat_hash_map<const GgufTensor*, BasePlace> base_places;
  size_t base_items = 0;             // in front of the experts', an item each
  std::vector<ExpertFile> experts;   // by layer, then expert
};

// Lays out the directory of one SplitPlan.
class DirectoryPlanner {
 public:
  DirectoryPlanner(const GgufModel& model, const SplitPlan& split, std::string directory)
      : model_(model), split_(split), directory_(std::move(directory)) {}

  absl::StatusOr<OutputPlan> Plan() {
    OutputPlan plan{.destination = directory_,
                    .journal_path = JournalPath(directory_, /*is_file=*/false),
                    .folders = {directory_, Path(kBaseModelFolder), Path(kExpertsFolder)}};
    for (const SplitBaseFile& file : split_.base_files) {
      ODMOE_ASSIGN_OR_RETURN(OutputFile planned, PlanBaseFile(file));
      plan.files.push_back(std::move(planned));
    }
    for (const GgufExpertLayer& layer : split_.layers)
      ODMOE_RETURN_IF_ERROR(PlanLayer(layer, plan));
    return plan;
  }

  std::shared_ptr<const DirectoryLayout> layout() const { return layout_; }

 private:
  std::string Path(absl::string_view inside) const { return absl::StrCat(directory_, "/", inside); }

  // Bytes [offset, offset + bytes) of a tensor, copied.
  OutputPart Copy(const GgufTensor& tensor, uint64_t offset, uint64_t bytes) const {
    const GgufModel::Place place = model_.PlaceOf(tensor);
    return {.bytes = bytes, .file = place.file, .offset = place.offset + offset};
  }

  absl::StatusOr<OutputFile> PlanBaseFile(const SplitBaseFile& file) {
    std::vector<SafetensorsTensor> tensors;
    std::map<std::string, std::string> metadata;
    for (const GgufTensor* tensor : file.tensors) {
      ODMOE_ASSIGN_OR_RETURN(StoredTensor stored,
                             StoreAs(tensor->name, tensor->dtype, tensor->ne));
      tensors.push_back(std::move(stored.tensor));
      metadata.merge(stored.metadata);
    }
    ODMOE_ASSIGN_OR_RETURN(
        std::string header, EncodeSafetensorsHeader(tensors, metadata, kExpertDataAlignment));
    OutputFile planned{.path = Path(absl::StrCat(kBaseModelFolder, "/", file.name)),
                       .bytes = header.size()};
    planned.header = std::make_shared<const std::string>(std::move(header));
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      const GgufTensor& tensor = *file.tensors[i];
      planned.items.push_back({.name = tensor.name,
                               .offset = tensors[i].offset,
                               .parts = {Copy(tensor, 0, tensor.bytes)}});
      planned.bytes = tensors[i].offset + tensor.bytes;
      layout_->base_places[&tensor] = {file.name, tensors[i].offset, layout_->base_items++};
    }
    return planned;
  }

  absl::Status PlanLayer(const GgufExpertLayer& layer, OutputPlan& plan) {
    std::vector<SafetensorsTensor> tensors;
    std::map<std::string, std::string> metadata;
    for (const GgufExpertPart& part : layer.parts) {
      const ExpertTensor& tensor = layer.layout.part(part.part);
      ODMOE_ASSIGN_OR_RETURN(StoredTensor stored,
                             StoreAs(std::string(ExpertPartName(part.part)), tensor.dtype,
                                     {tensor.columns, tensor.rows}));
      tensors.push_back(std::move(stored.tensor));
      metadata.merge(stored.metadata);
    }
    ODMOE_ASSIGN_OR_RETURN(
        std::string text, EncodeSafetensorsHeader(tensors, metadata, kExpertDataAlignment));
    const auto header = std::make_shared<const std::string>(std::move(text));
    for (int32_t expert = 0; expert < layer.expert_count; ++expert) {
      plan.files.push_back(PlanExpert(layer, expert, header));
      layout_->experts.push_back({.path = plan.files.back().path,
                                  .file_bytes = plan.files.back().bytes,
                                  .data_offset = header->size()});
    }
    return absl::OkStatus();
  }

  OutputFile PlanExpert(const GgufExpertLayer& layer, int32_t expert,
                        const std::shared_ptr<const std::string>& header) const {
    OutputItem item{.name = ExpertName({layer.layer, expert}), .offset = header->size()};
    for (const GgufExpertPart& part : layer.parts) {
      const GgufExtent extent = part.Extent(expert);
      item.parts.push_back(Copy(*extent.tensor, extent.offset, extent.bytes));
    }
    OutputFile file{
        .path = Path(absl::StrCat(kExpertsFolder, "/", item.name, ".safetensors")),
        .bytes = header->size() + layer.layout.bytes,
        .header = header};
    file.items.push_back(std::move(item));
    return file;
  }

  const GgufModel& model_;
  const SplitPlan& split_;
  const std::string directory_;
  const std::shared_ptr<DirectoryLayout> layout_ = std::make_shared<DirectoryLayout>();
};

absl::StatusOr<ExpertCatalog> MakeCatalog(const SplitPlan& split,
                                          absl::Span<const uint64_t> expert_hashes) {
  std::vector<LayerExperts> layers;
  for (const GgufExpertLayer& layer : split.layers) {
    const auto count = static_cast<size_t>(layer.expert_count);
    const auto hashes = expert_hashes.subspan(0, count);
    layers.push_back({.layer = layer.layer,
                      .expert_count = layer.expert_count,
                      .layout = layer.layout,
                      .xxh3 = {hashes.begin(), hashes.end()}});
    expert_hashes.remove_prefix(count);
  }
  return ExpertCatalog::Create(ModelDigest(layers), layers);
}

absl::StatusOr<ModelIndex> MakeIndex(const GgufModel& model, const SplitPlan& split,
                                     const DirectoryLayout& layout,
                                     absl::Span<const uint64_t> hashes) {
  ModelIndex index;
  index.metadata = model.metadata();
  index.gguf_version = model.version();
  index.gguf_alignment = model.alignment();
  ODMOE_ASSIGN_OR_RETURN(index.gguf_bytes, model.MergedBytes());
  ODMOE_ASSIGN_OR_RETURN(index.gguf_padding, model.ReadPadding());
  for (const GgufTensor& tensor : model.tensors()) {
    IndexedTensor indexed{.name = tensor.name, .dtype = tensor.dtype, .ne = tensor.ne};
    indexed.bytes = tensor.bytes;
    const auto experts = split.expert_tensors.find(&tensor);
    if (experts != split.expert_tensors.end()) {
      indexed.expert_layer = experts->second.layer;
      indexed.expert_parts = experts->second.parts;
      indexed.expert = experts->second.expert;
    } else {
      const BasePlace& place = layout.base_places.at(&tensor);
      indexed.file = place.file;
      indexed.offset = place.offset;
      indexed.xxh3 = hashes[place.item];
    }
    index.tensors.push_back(std::move(indexed));
  }
  return index;
}

}  // namespace

absl::StatusOr<OutputPlan> PlanModelDirectory(const GgufModel& model, const SplitPlan& split,
                                              const std::string& directory) {
  DirectoryPlanner planner(model, split, directory);
  ODMOE_ASSIGN_OR_RETURN(OutputPlan plan, planner.Plan());
  plan.texts = [&model, &split, directory, layout = planner.layout()](
                   absl::Span<const uint64_t> hashes) -> absl::StatusOr<std::vector<OutputText>> {
    ODMOE_ASSIGN_OR_RETURN(const ExpertCatalog catalog,
                           MakeCatalog(split, hashes.subspan(layout->base_items)));
    ODMOE_ASSIGN_OR_RETURN(ModelIndex index, MakeIndex(model, split, *layout, hashes));
    index.model_digest = catalog.model_digest();
    ODMOE_ASSIGN_OR_RETURN(std::string text, EncodeModelIndex(index));
    return std::vector<OutputText>{{absl::StrCat(directory, "/", kMetadataFile), std::move(text)},
                                   {absl::StrCat(directory, "/", kRegistryFile),
                                    EncodeExpertRegistry(catalog, layout->experts)}};
  };
  return plan;
}

std::vector<const RandomAccessFile*> ModelFiles(const GgufModel& model) {
  std::vector<const RandomAccessFile*> files;
  for (const auto& shard : model.shards()) files.push_back(&shard->file());
  return files;
}

absl::Status SplitGguf(const GgufModel& model, const SplitPlan& split,
                       const std::string& directory, FileSystem& fs, const WriteOptions& options,
                       StepProgress& progress) {
  ODMOE_ASSIGN_OR_RETURN(OutputPlan plan, PlanModelDirectory(model, split, directory));
  ODMOE_RETURN_IF_ERROR(SetFingerprint(plan, "split", ModelFiles(model)));
  return WriteOutput(plan, fs, options, progress);
}

}  // namespace odmoe
