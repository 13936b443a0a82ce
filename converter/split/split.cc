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

// One run of SplitGguf.
class Splitter {
 public:
  Splitter(const GgufReader& reader, const SplitPlan& plan, std::string directory, FileSystem& fs,
           StepProgress& progress)
      : reader_(reader),
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

  // Copies bytes [offset, offset + bytes) of a tensor, hashing them where asked.
  absl::Status Copy(const GgufTensor& tensor, uint64_t offset, uint64_t bytes, WritableFile& out,
                    XXH3_state_t* hash) {
    const uint64_t end = offset + bytes;
    while (offset < end) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(end - offset, kChunkBytes));
      const absl::Span<std::byte> chunk = buffer_.span().subspan(0, count);
      ODMOE_RETURN_IF_ERROR(reader_.ReadTensor(tensor, offset, chunk));
      if (hash != nullptr) XXH3_64bits_update(hash, chunk.data(), chunk.size());
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
      ODMOE_RETURN_IF_ERROR(Copy(tensor, 0, tensor.bytes, out->file(), nullptr));
      base_places_[&tensor] = {file.name, tensors[i].offset};
    }
    return outputs_.Commit(std::move(out), path);
  }

  absl::Status WriteLayer(const SplitLayer& layer) {
    LayerExperts experts{.layer = layer.layer,
                         .expert_count = layer.expert_count,
                         .layout = layer.layout};
    std::vector<SafetensorsTensor> tensors;
    std::map<std::string, std::string> metadata;
    for (const auto& [part, tensor] : {std::pair{ExpertPart::kW1, &layer.layout.w1},
                                       std::pair{ExpertPart::kW2, &layer.layout.w2},
                                       std::pair{ExpertPart::kW3, &layer.layout.w3}}) {
      ODMOE_ASSIGN_OR_RETURN(StoredTensor stored,
                             StoreAs(std::string(ExpertPartName(part)), tensor->dtype,
                                     {tensor->columns, tensor->rows}));
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
    for (const auto& [stack, part] :
         {std::pair{layer.w1, &layer.layout.w1}, std::pair{layer.w2, &layer.layout.w2},
          std::pair{layer.w3, &layer.layout.w3}}) {
      ODMOE_RETURN_IF_ERROR(Copy(*stack, static_cast<uint64_t>(expert) * part->bytes, part->bytes,
                                 out->file(), hash_.get()));
    }
    files_.push_back({.path = path,
                      .file_bytes = out->file().offset(),
                      .data_offset = header.size()});
    ODMOE_RETURN_IF_ERROR(outputs_.Commit(std::move(out), path));
    return XXH3_64bits_digest(hash_.get());
  }

  absl::Status WriteIndex(const std::string& digest) {
    ModelIndex index;
    index.metadata = reader_.metadata();
    index.gguf_version = reader_.version();
    index.gguf_alignment = reader_.alignment();
    index.gguf_bytes = reader_.file().size();
    index.model_digest = digest;
    std::map<const GgufTensor*, std::pair<int32_t, ExpertPart>> expert_places;
    for (const SplitLayer& layer : plan_.layers) {
      expert_places[layer.w1] = {layer.layer, ExpertPart::kW1};
      expert_places[layer.w2] = {layer.layer, ExpertPart::kW2};
      expert_places[layer.w3] = {layer.layer, ExpertPart::kW3};
    }
    for (const GgufTensor& tensor : reader_.tensors()) {
      IndexedTensor indexed{.name = tensor.name, .dtype = tensor.dtype, .ne = tensor.ne};
      indexed.bytes = tensor.bytes;
      if (const auto place = expert_places.find(&tensor); place != expert_places.end()) {
        std::tie(indexed.expert_layer, indexed.expert_part) = place->second;
      } else {
        std::tie(indexed.file, indexed.offset) = base_places_.at(&tensor);
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

  const GgufReader& reader_;
  const SplitPlan& plan_;
  const std::string directory_;
  FileSystem& fs_;
  StepProgress& progress_;
  OutputFiles outputs_;
  AlignedBuffer buffer_;
  std::unique_ptr<XXH3_state_t, FreeHash> hash_;
  std::map<const GgufTensor*, std::pair<std::string, uint64_t>> base_places_;
  std::vector<LayerExperts> layers_;
  std::vector<ExpertFile> files_;  // by layer, then expert
};

}  // namespace

absl::Status SplitGguf(const GgufReader& reader, const SplitPlan& plan,
                       const std::string& directory, FileSystem& fs, StepProgress& progress) {
  return Splitter(reader, plan, directory, fs, progress).Run();
}

}  // namespace odmoe
