#include "services/core/formats/model_directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxRegistryBytes = uint64_t{256} << 20;

absl::StatusOr<std::string> ReadRegistryText(const std::string& model_directory) {
  auto text = ReadWholeFile(PosixFileSystem(), absl::StrCat(model_directory, "/", kRegistryFile),
                            kMaxRegistryBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat(model_directory,
                                            " is not a model directory, or one whose conversion ",
                                            "did not end: no ", kRegistryFile));
  }
  return text;
}

// Only a directory that has its registry is complete.
absl::Status CheckComplete(const std::string& model_directory) {
  const auto opened = PosixFileSystem().OpenForRead(absl::StrCat(model_directory, "/", kRegistryFile));
  if (opened.ok()) return absl::OkStatus();
  return absl::IsNotFound(opened.status()) ? ReadRegistryText(model_directory).status()
                                           : opened.status();
}

// Checks that the safetensors file says of a tensor what the index says.
absl::Status CheckAgainstHeader(const IndexedTensor& tensor, const SafetensorsReader& reader) {
  ODMOE_ASSIGN_OR_RETURN(const StoredTensor stored, StoreAs(tensor.name, tensor.dtype, tensor.ne));
  const SafetensorsTensor* found = reader.Find(tensor.name);
  const std::string where = absl::StrCat(reader.file().path(), ": tensor '", tensor.name, "'");
  if (found == nullptr) return absl::DataLossError(absl::StrCat(where, " is missing"));
  if (found->dtype != stored.tensor.dtype || found->shape != stored.tensor.shape ||
      found->offset != tensor.offset || found->bytes != stored.tensor.bytes) {
    return absl::DataLossError(
        absl::StrCat(where, " has another format, shape or place than ", kMetadataFile, " says"));
  }
  return absl::OkStatus();
}

// A base-model file, both parsed and mapped.
struct BaseFile {
  std::unique_ptr<SafetensorsReader> reader;
  std::unique_ptr<MappedFile> mapped;
};

absl::StatusOr<BaseFile> OpenBaseFile(const std::string& path) {
  BaseFile file;
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> opened,
                         PosixFileSystem().OpenForRead(path));
  ODMOE_ASSIGN_OR_RETURN(file.reader, SafetensorsReader::Open(std::move(opened)));
  ODMOE_ASSIGN_OR_RETURN(file.mapped, MappedFile::Open(path));
  if (file.mapped->bytes().size() != file.reader->file().size()) {
    return absl::DataLossError(absl::StrCat(path, ": changed its size while it was opened"));
  }
  return file;
}

}  // namespace

int64_t BaseTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  return ne.empty() ? 0 : rows;
}

absl::StatusOr<ExpertRegistry> ReadExpertRegistry(const std::string& model_directory) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadRegistryText(model_directory));
  return ParseExpertRegistry(text, model_directory,
                             absl::StrCat(model_directory, "/", kRegistryFile));
}

absl::StatusOr<std::unique_ptr<BaseModel>> BaseModel::Open(const std::string& model_directory) {
  ODMOE_RETURN_IF_ERROR(CheckComplete(model_directory));
  ODMOE_ASSIGN_OR_RETURN(ModelIndex index, ReadModelIndex(PosixFileSystem(), model_directory));
  std::unique_ptr<BaseModel> model(new BaseModel);
  model->metadata_ = std::move(index.metadata);
  absl::flat_hash_map<std::string, BaseFile> files;
  for (IndexedTensor& tensor : index.tensors) {
    if (tensor.file.empty()) continue;
    auto found = files.find(tensor.file);
    if (found == files.end()) {
      ODMOE_ASSIGN_OR_RETURN(
          BaseFile file,
          OpenBaseFile(absl::StrCat(model_directory, "/", kBaseModelFolder, "/", tensor.file)));
      found = files.emplace(tensor.file, std::move(file)).first;
    }
    ODMOE_RETURN_IF_ERROR(CheckAgainstHeader(tensor, *found->second.reader));
    model->by_name_.emplace(tensor.name, model->tensors_.size());
    model->total_bytes_ += tensor.bytes;
    model->tensors_.push_back(
        {.name = std::move(tensor.name),
         .dtype = tensor.dtype,
         .ne = std::move(tensor.ne),
         .data = found->second.mapped->bytes().subspan(tensor.offset, tensor.bytes)});
  }
  for (auto& [name, file] : files) model->files_.push_back(std::move(file.mapped));
  return model;
}

const BaseTensor* BaseModel::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<GgufMetadata> ReadModelMetadata(const std::string& model_directory) {
  ODMOE_RETURN_IF_ERROR(CheckComplete(model_directory));
  ODMOE_ASSIGN_OR_RETURN(ModelIndex index, ReadModelIndex(PosixFileSystem(), model_directory));
  return std::move(index.metadata);
}

}  // namespace odmoe
