#include "services/expert_storage/sources/expert_places.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/expert_id.h"
#include "services/core/formats/gguf_experts.h"
#include "services/core/formats/model_index.h"
#include "services/core/io/aligned_buffer.h"
#include "xxhash.h"

namespace odmoe {
namespace {

std::string UsualName(ExpertId id) {
  return absl::StrCat(kExpertsFolder, "/", ExpertName(id), ".safetensors");
}

class DirectoryPlaces final : public ExpertPlaces {
 public:
  DirectoryPlaces(ExpertRegistry registry, const std::string& model_directory)
      : ExpertPlaces(std::move(registry.catalog)) {
    offsets_.reserve(registry.files.size());
    const std::string folder = absl::StrCat(model_directory, "/");
    for (uint32_t i = 0; i < registry.files.size(); ++i) {
      const ExpertFile& file = registry.files[i];
      offsets_.push_back(file.data_offset);
      std::string name = absl::StartsWith(file.path, folder) ? file.path.substr(folder.size())
                                                             : file.path;
      if (name != UsualName(catalog().IdOf(i))) unusual_names_.emplace(i, std::move(name));
    }
  }

  FileExtents Extents(int64_t expert) const override {
    const uint64_t bytes = catalog().FindLayer(catalog().IdOf(expert).layer)->layout.bytes;
    return {{static_cast<uint32_t>(expert), offsets_[expert], 0, bytes}};
  }

  std::string FileName(uint32_t file) const override {
    const auto unusual = unusual_names_.find(file);
    return unusual != unusual_names_.end() ? unusual->second : UsualName(catalog().IdOf(file));
  }

  FileStamp Stamp(uint32_t) const override { return {}; }

 private:
  std::vector<uint64_t> offsets_;  // of the data, by expert
  absl::flat_hash_map<uint32_t, std::string> unusual_names_;
};

// One part of all experts of a layer.
struct PlacedPart {
  struct At {
    uint32_t file = 0;
    uint64_t offset = 0;
  };
  uint64_t bytes = 0;
  uint64_t stride = 0;  // from an expert to the next, where one tensor has them all
  std::vector<At> at;   // of the first expert, or of each where they have tensors of their own
};

class GgufPlaces final : public ExpertPlaces {
 public:
  GgufPlaces(ExpertCatalog catalog, const GgufModel& model,
             const std::vector<GgufExpertLayer>& layers)
      : ExpertPlaces(std::move(catalog)) {
    absl::flat_hash_map<const RandomAccessFile*, uint32_t> numbers;
    for (const auto& shard : model.shards()) {
      const RandomAccessFile& file = shard->file();
      numbers.emplace(&file, static_cast<uint32_t>(files_.size()));
      files_.push_back({file.path().substr(file.path().rfind('/') + 1),
                        {file.size(), file.modified_ns()}});
    }
    for (const GgufExpertLayer& layer : layers) {
      std::vector<PlacedPart>& parts = parts_.emplace_back();
      for (const GgufExpertPart& part : layer.parts) {
        PlacedPart& placed = parts.emplace_back();
        placed.bytes = part.bytes;
        placed.stride = part.tensors.size() > 1 ? 0 : part.stride;
        for (const GgufTensor* tensor : part.tensors) {
          const GgufModel::Place place = model.PlaceOf(*tensor);
          const uint64_t first = placed.stride > 0 ? part.offset : 0;
          placed.at.push_back({numbers.at(place.file), place.offset + first});
        }
      }
    }
  }

  FileExtents Extents(int64_t index) const override {
    const ExpertId id = catalog().IdOf(index);
    const size_t layer = static_cast<size_t>(catalog().FindLayer(id.layer) -
                                             catalog().layers().data());
    const uint64_t expert = static_cast<uint64_t>(id.expert);
    FileExtents extents;
    uint64_t end = 0;
    for (const PlacedPart& part : parts_[layer]) {
      const PlacedPart::At& at = part.at[part.stride > 0 ? 0 : expert];
      extents.push_back({at.file, at.offset + expert * part.stride, end, part.bytes});
      end += part.bytes;
    }
    return extents;
  }

  std::string FileName(uint32_t file) const override { return files_[file].name; }
  FileStamp Stamp(uint32_t file) const override { return files_[file].stamp; }

 private:
  struct File {
    std::string name;
    FileStamp stamp;
  };
  std::vector<File> files_;
  std::vector<std::vector<PlacedPart>> parts_;  // by entry of catalog().layers(), in byte order
};

// Headers, sizes, and some pages of each layer's experts: enough to tell a model from its
// neighbours without reading it.
absl::StatusOr<std::string> SampleDigest(const GgufModel& model,
                                         const std::vector<GgufExpertLayer>& layers) {
  std::string sample;
  const auto add = [&](const RandomAccessFile& file, uint64_t offset,
                       uint64_t bytes) -> absl::Status {
    const size_t old = sample.size();
    sample.resize(old + bytes);
    return file.ReadAt(offset,
                       absl::MakeSpan(reinterpret_cast<std::byte*>(sample.data()) + old, bytes));
  };
  XXH128_hash_t digest = {0, 0};
  const auto fold = [&] {
    digest = XXH3_128bits_withSeed(sample.data(), sample.size(), digest.low64 ^ digest.high64);
    sample.clear();
  };
  for (const auto& shard : model.shards()) {
    ODMOE_RETURN_IF_ERROR(add(shard->file(), 0, shard->header_bytes()));
    absl::StrAppend(&sample, " ", shard->file().size());
    fold();
  }
  for (const GgufExpertLayer& layer : layers) {
    for (const GgufExpertPart& part : layer.parts) {
      for (const int32_t expert : {0, layer.expert_count - 1}) {
        const GgufExtent extent = part.Extent(expert);
        const GgufModel::Place place = model.PlaceOf(*extent.tensor);
        ODMOE_RETURN_IF_ERROR(add(*place.file, place.offset + extent.offset,
                                  std::min<uint64_t>(extent.bytes, kDirectIoAlignment)));
      }
    }
    fold();
  }
  return absl::StrCat(absl::Hex(digest.high64, absl::kZeroPad16),
                      absl::Hex(digest.low64, absl::kZeroPad16));
}

}  // namespace

std::unique_ptr<ExpertPlaces> PlacesInDirectory(ExpertRegistry registry,
                                                const std::string& model_directory) {
  return std::make_unique<DirectoryPlaces>(std::move(registry), model_directory);
}

absl::StatusOr<std::unique_ptr<ExpertPlaces>> PlacesInGguf(const GgufModel& model) {
  ODMOE_ASSIGN_OR_RETURN(const std::vector<GgufExpertLayer> layers, FindExpertLayers(model));
  if (layers.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(model.path(), ": a model without routed experts has nothing to serve"));
  }
  std::vector<LayerExperts> experts;
  for (const GgufExpertLayer& layer : layers) {
    experts.push_back({layer.layer, layer.expert_count, layer.layout, {}});
  }
  ODMOE_ASSIGN_OR_RETURN(std::string digest, SampleDigest(model, layers));
  auto catalog = ExpertCatalog::Create(std::move(digest), std::move(experts));
  if (!catalog.ok()) {
    return absl::DataLossError(absl::StrCat(model.path(), ": ", catalog.status().message()));
  }
  return std::make_unique<GgufPlaces>(*std::move(catalog), model, layers);
}

}  // namespace odmoe
