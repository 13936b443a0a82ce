#include "converter/split/split.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <utility>

#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "converter/output_files.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {
namespace {

// Large enough for a disk to stream, small enough that cancelling is prompt.
constexpr size_t kChunkBytes = 4 * kMiB;

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// Where a base-model tensor went, and what its bytes hash to.
struct BasePlace {
  std::string file;
  uint64_t offset = 0;
  uint64_t xxh3 = 0;
};

// One run of SplitGguf.
class Splitter {
 public:
  Splitter(const GgufModel& model, const SplitPlan& plan, std::string directory, FileSystem& fs,
           StepProgress& progress)
      : model_(model),
        plan_(plan),
        directory_(std::move(directory)),
        fs_(fs),
        progress_(progress),
        outputs_(fs),
        hash_(XXH3_createState()) {}

  absl::Status Run() {
    ODMOE_ASSIGN_OR_RETURN(buffer_, AlignedBuffer::Allocate(kChunkBytes));
    ODMOE_RETURN_IF_ERROR(PrepareFolders());
    for (const SplitBaseFile& file : plan_.base_files) ODMOE_RETURN_IF_ERROR(WriteBaseFile(file));
    for (const SplitLayer& layer : plan_.layers) ODMOE_RETURN_IF_ERROR(WriteLayer(layer));
    ODMOE_ASSIGN_OR_RETURN(const ExpertCatalog catalog,
                           ExpertCatalog::Create(ModelDigest(layers_), layers_));
    ODMOE_RETURN_IF_ERROR(WriteIndex(catalog.model_digest()));
    ODMOE_RETURN_IF_ERROR(outputs_.CommitAll());
    ODMOE_RETURN_IF_ERROR(fs_.SyncDirectory(Path(kBaseModelFolder)));
    ODMOE_RETURN_IF_ERROR(fs_.SyncDirectory(Path(kExpertsFolder)));
    ODMOE_RETURN_IF_ERROR(
        WriteText(kRegistryFile, EncodeExpertRegistry(catalog, files_)));
    ODMOE_RETURN_IF_ERROR(outputs_.CommitAll());
    ODMOE_RETURN_IF_ERROR(fs_.SyncDirectory(Path(kExpertsFolder)));
    outputs_.Keep();
    return absl::OkStatus();
  }

 private:
  std::string Path(absl::string_view inside) const { return absl::StrCat(directory_, "/", inside); }

  // A registry from before would call the new files complete while they are not.
  absl::Status PrepareFolders() {
    for (const std::string& folder : {directory_, Path(kBaseModelFolder), Path(kExpertsFolder)}) {
      ODMOE_RETURN_IF_ERROR(outputs_.CreateFolder(folder));
    }
    const absl::Status removed = fs_.Remove(Path(kRegistryFile));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    return fs_.SyncDirectory(Path(kExpertsFolder));
  }

  // Copies bytes [offset, offset + bytes) of a tensor, hashing them.
  absl::Status Copy(const GgufTensor& tensor, uint64_t offset, uint64_t bytes, WritableFile& out) {
    const uint64_t end = offset + bytes;
    while (offset < end) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(end - offset, kChunkBytes));
      const absl::Span<std::byte> chunk = buffer_.span().subspan(0, count);
      ODMOE_RETURN_IF_ERROR(model_.ReadTensor(tensor, offset, chunk));
      XXH3_64bits_update(hash_.get(), chunk.data(), chunk.size());
      ODMOE_RETURN_IF_ERROR(out.Append(chunk));
      ODMOE_RETURN_IF_ERROR(progress_.Advance(count));
      offset += count;
    }
    return absl::OkStatus();
  }

  absl::Status WriteBaseFile(const SplitBaseFile& file) {
    std::vector<SafetensorsTensor> tensors;
    std::map<std::string, std::string> metadata;
    for (const GgufTensor* tensor : file.tensors) {
      ODMOE_ASSIGN_OR_RETURN(StoredTensor stored,
                             StoreAs(tensor->name, tensor->dtype, tensor->ne));
      tensors.push_back(std::move(stored.tensor));
      metadata.merge(stored.metadata);
    }
    ODMOE_ASSIGN_OR_RETURN(
        const std::string header,
        EncodeSafetensorsHeader(tensors, metadata, kExpertDataAlignment));
    const std::string path = Path(absl::StrCat(kBaseModelFolder, "/", file.name));
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> out, AtomicFile::Create(fs_, path));
    ODMOE_RETURN_IF_ERROR(out->file().Append(header));
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      const GgufTensor& tensor = *file.tensors[i];
      progress_.Begin(tensor.name);
      XXH3_64bits_reset(hash_.get());
      ODMOE_RETURN_IF_ERROR(Copy(tensor, 0, tensor.bytes, out->file()));
      base_places_[&tensor] = {file.name, tensors[i].offset, XXH3_64bits_digest(hash_.get())};
    }
    return outputs_.Commit(std::move(out), path);
  }

  absl::Status WriteLayer(const SplitLayer& layer) {
    LayerExperts experts{.layer = layer.layer,
                         .expert_count = layer.expert_count,
                         .layout = layer.layout};
    std::vector<SafetensorsTensor> tensors;
    std::map<std::string, std::string> metadata;
    for (const SplitPart& part : layer.parts) {
      const ExpertTensor& tensor = layer.layout.part(part.part);
      ODMOE_ASSIGN_OR_RETURN(StoredTensor stored,
                             StoreAs(std::string(ExpertPartName(part.part)), tensor.dtype,
                                     {tensor.columns, tensor.rows}));
      tensors.push_back(std::move(stored.tensor));
      metadata.merge(stored.metadata);
    }
    ODMOE_ASSIGN_OR_RETURN(
        const std::string header,
        EncodeSafetensorsHeader(tensors, metadata, kExpertDataAlignment));
    for (int32_t expert = 0; expert < layer.expert_count; ++expert) {
      ODMOE_ASSIGN_OR_RETURN(const uint64_t xxh3, WriteExpert(layer, expert, header));
      experts.xxh3.push_back(xxh3);
    }
    layers_.push_back(std::move(experts));
    return absl::OkStatus();
  }

  // Returns the hash of the expert's bytes.
  absl::StatusOr<uint64_t> WriteExpert(const SplitLayer& layer, int32_t expert,
                                       const std::string& header) {
    const std::string name = ExpertName({layer.layer, expert});
    const std::string path = Path(absl::StrCat(kExpertsFolder, "/", name, ".safetensors"));
    progress_.Begin(name);
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> out, AtomicFile::Create(fs_, path));
    ODMOE_RETURN_IF_ERROR(out->file().Append(header));
    XXH3_64bits_reset(hash_.get());
    for (const SplitPart& part : layer.parts) {
      const SplitExtent extent = part.Extent(expert);
      ODMOE_RETURN_IF_ERROR(Copy(*extent.tensor, extent.offset, extent.bytes, out->file()));
    }
    files_.push_back({.path = path,
                      .file_bytes = out->file().offset(),
                      .data_offset = header.size()});
    ODMOE_RETURN_IF_ERROR(outputs_.Commit(std::move(out), path));
    return XXH3_64bits_digest(hash_.get());
  }

  absl::Status WriteIndex(const std::string& digest) {
    ModelIndex index;
    index.metadata = model_.metadata();
    index.gguf_version = model_.version();
    index.gguf_alignment = model_.alignment();
    ODMOE_ASSIGN_OR_RETURN(index.gguf_bytes, model_.MergedBytes());
    ODMOE_ASSIGN_OR_RETURN(index.gguf_padding, model_.ReadPadding());
    index.model_digest = digest;
    for (const GgufTensor& tensor : model_.tensors()) {
      IndexedTensor indexed{.name = tensor.name, .dtype = tensor.dtype, .ne = tensor.ne};
      indexed.bytes = tensor.bytes;
      const auto experts = plan_.expert_tensors.find(&tensor);
      if (experts != plan_.expert_tensors.end()) {
        indexed.expert_layer = experts->second.layer;
        indexed.expert_parts = experts->second.parts;
        indexed.expert = experts->second.expert;
      } else {
        const BasePlace& place = base_places_.at(&tensor);
        indexed.file = place.file;
        indexed.offset = place.offset;
        indexed.xxh3 = place.xxh3;
      }
      index.tensors.push_back(std::move(indexed));
    }
    ODMOE_ASSIGN_OR_RETURN(const std::string text, EncodeModelIndex(index));
    return WriteText(kMetadataFile, text);
  }

  absl::Status WriteText(absl::string_view inside, const std::string& text) {
    const std::string path = Path(inside);
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> out, AtomicFile::Create(fs_, path));
    ODMOE_RETURN_IF_ERROR(out->file().Append(text));
    return outputs_.Commit(std::move(out), path);
  }

  const GgufModel& model_;
  const SplitPlan& plan_;
  const std::string directory_;
  FileSystem& fs_;
  StepProgress& progress_;
  OutputFiles outputs_;
  AlignedBuffer buffer_;
  std::unique_ptr<XXH3_state_t, FreeHash> hash_;
  std::map<const GgufTensor*, BasePlace> base_places_;
  std::vector<LayerExperts> layers_;
  std::vector<ExpertFile> files_;  // by layer, then expert
};

}  // namespace

absl::Status SplitGguf(const GgufModel& model, const SplitPlan& plan,
                       const std::string& directory, FileSystem& fs, StepProgress& progress) {
  return Splitter(model, plan, directory, fs, progress).Run();
}

}  // namespace odmoe
