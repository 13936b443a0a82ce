#include "services/core/formats/model_directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/base_files.h"
#include "services/core/formats/gguf_experts.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/model_path.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxRegistryBytes = uint64_t{256} << 20;

absl::StatusOr<std::string> ReadRegistryText(const std::string& model_directory, FileSystem& fs) {
  auto text =
      ReadWholeFile(fs, absl::StrCat(model_directory, "/", kRegistryFile), kMaxRegistryBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat(model_directory,
                                            " is not a model directory, or one whose conversion ",
                                            "did not end: no ", kRegistryFile));
  }
  return text;
}

// A GGUF file's registry where it has no routed experts.
absl::StatusOr<std::optional<ExpertRegistry>> ReadDenseGguf(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const auto gguf, GgufModel::Open(PosixFileSystem(), path));
  for (const GgufTensor& tensor : gguf->tensors()) {
    if (PlaceOfExpertTensor(tensor.name)) return std::nullopt;
  }
  ExpertRegistry registry;
  ODMOE_ASSIGN_OR_RETURN(registry.catalog, ExpertCatalog::Create(ModelDigest({}), {}));
  return registry;
}

// Only a directory that has its registry is complete.
absl::Status CheckComplete(const std::string& model_directory) {
  const auto opened =
      PosixFileSystem().OpenForRead(absl::StrCat(model_directory, "/", kRegistryFile));
  if (opened.ok()) return absl::OkStatus();
  return absl::IsNotFound(opened.status())
             ? ReadRegistryText(model_directory, PosixFileSystem()).status()
             : opened.status();
}

absl::StatusOr<std::unique_ptr<MappedFile>> MapWhole(const RandomAccessFile& file) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(file.path()));
  if (mapped->bytes().size() != file.size()) {
    return absl::DataLossError(absl::StrCat(file.path(), ": changed its size while it was opened"));
  }
  return mapped;
}

}  // namespace

int64_t BaseTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  return ne.empty() ? 0 : rows;
}

absl::StatusOr<ExpertRegistry> ReadExpertRegistry(const std::string& model_directory,
                                                  FileSystem& fs) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadRegistryText(model_directory, fs));
  return ParseExpertRegistry(text, model_directory,
                             absl::StrCat(model_directory, "/", kRegistryFile));
}

absl::StatusOr<std::optional<ExpertRegistry>> ReadDenseRegistry(
    const std::string& model) {
  if (IsModelFile(model)) return ReadDenseGguf(model);
  // An entry of an expert takes some hundred bytes; the header of a registry without any, fewer.
  constexpr uint64_t kMostBytes = 4096;
  const std::string path = absl::StrCat(model, "/", kRegistryFile);
  const auto file = PosixFileSystem().OpenForRead(path);
  if (file.ok() && (*file)->size() > kMostBytes) return std::nullopt;
  ODMOE_ASSIGN_OR_RETURN(ExpertRegistry registry, ReadExpertRegistry(model));
  if (registry.catalog.expert_count() > 0) return std::nullopt;
  return registry;
}

absl::StatusOr<std::unique_ptr<BaseModel>> BaseModel::Open(const std::string& model) {
  if (IsModelFile(model)) return OpenGguf(model);
  ODMOE_RETURN_IF_ERROR(CheckComplete(model));
  ODMOE_ASSIGN_OR_RETURN(ModelIndex index, ReadModelIndex(PosixFileSystem(), model));
  std::unique_ptr<BaseModel> base(new BaseModel);
  base->metadata_ = std::move(index.metadata);
  ODMOE_ASSIGN_OR_RETURN(const BaseFiles files,
                         BaseFiles::Open(PosixFileSystem(), model, index));
  absl::flat_hash_map<std::string, absl::Span<const std::byte>> bytes;
  for (const auto& [name, reader] : files.files()) {
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MapWhole(reader->file()));
    bytes.emplace(name, mapped->bytes());
    base->files_.push_back(std::move(mapped));
  }
  for (IndexedTensor& tensor : index.tensors) {
    if (tensor.file.empty()) continue;
    base->Add({.name = std::move(tensor.name),
               .dtype = tensor.dtype,
               .ne = std::move(tensor.ne),
               .data = bytes.at(tensor.file).subspan(tensor.offset, tensor.bytes)});
  }
  return base;
}

absl::StatusOr<std::unique_ptr<BaseModel>> BaseModel::OpenGguf(const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(const auto gguf, GgufModel::Open(PosixFileSystem(), path));
  std::unique_ptr<BaseModel> base(new BaseModel);
  base->metadata_ = gguf->metadata();
  absl::flat_hash_map<const RandomAccessFile*, absl::Span<const std::byte>> bytes;
  for (const auto& shard : gguf->shards()) {
    ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MapWhole(shard->file()));
    bytes.emplace(&shard->file(), mapped->bytes());
    base->files_.push_back(std::move(mapped));
  }
  for (const GgufTensor& tensor : gguf->tensors()) {
    if (PlaceOfExpertTensor(tensor.name)) continue;
    // The reader has found every tensor inside its file.
    const GgufModel::Place place = gguf->PlaceOf(tensor);
    base->Add({.name = tensor.name,
               .dtype = tensor.dtype,
               .ne = tensor.ne,
               .data = bytes.at(place.file).subspan(place.offset, tensor.bytes)});
  }
  return base;
}

void BaseModel::Add(BaseTensor tensor) {
  by_name_.emplace(tensor.name, tensors_.size());
  total_bytes_ += tensor.data.size();
  tensors_.push_back(std::move(tensor));
}

const BaseTensor* BaseModel::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<GgufMetadata> ReadModelMetadata(const std::string& model) {
  if (IsModelFile(model)) {
    ODMOE_ASSIGN_OR_RETURN(const auto gguf, GgufModel::Open(PosixFileSystem(), model));
    return gguf->metadata();
  }
  ODMOE_RETURN_IF_ERROR(CheckComplete(model));
  ODMOE_ASSIGN_OR_RETURN(ModelIndex index, ReadModelIndex(PosixFileSystem(), model));
  return std::move(index.metadata);
}

}  // namespace odmoe
