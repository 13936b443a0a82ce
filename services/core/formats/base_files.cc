#include "services/core/formats/base_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// Checks that a safetensors file has `name` at `offset` as a matrix of that format and shape is
// stored; `source` is where that is said.
absl::Status CheckTensor(const SafetensorsReader& reader, const std::string& name, DType dtype,
                         const std::vector<int64_t>& ne, uint64_t offset,
                         absl::string_view source) {
  ODMOE_ASSIGN_OR_RETURN(const StoredTensor stored, StoreAs(name, dtype, ne));
  const SafetensorsTensor* found = reader.Find(name);
  const std::string where = absl::StrCat(reader.file().path(), ": tensor '", name, "'");
  if (found == nullptr) return absl::DataLossError(absl::StrCat(where, " is missing"));
  bool as_said = found->dtype == stored.tensor.dtype && found->shape == stored.tensor.shape &&
                 found->offset == offset && found->bytes == stored.tensor.bytes;
  for (const auto& [key, value] : stored.metadata) {
    const auto entry = reader.metadata().find(key);
    as_said = as_said && entry != reader.metadata().end() && entry->second == value;
  }
  if (as_said) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(where, " has another format, shape or place than ", source, " says"));
}

}  // namespace

absl::StatusOr<BaseFiles> BaseFiles::Open(FileSystem& fs, const std::string& model_directory,
                                          const ModelIndex& index) {
  BaseFiles base;
  for (const IndexedTensor& tensor : index.tensors) {
    if (tensor.file.empty()) continue;
    auto found = base.files_.find(tensor.file);
    if (found == base.files_.end()) {
      ODMOE_ASSIGN_OR_RETURN(
          std::unique_ptr<RandomAccessFile> file,
          fs.OpenForRead(absl::StrCat(model_directory, "/", kBaseModelFolder, "/", tensor.file)));
      ODMOE_ASSIGN_OR_RETURN(auto reader, SafetensorsReader::Open(std::move(file)));
      found = base.files_.emplace(tensor.file, std::move(reader)).first;
    }
    ODMOE_RETURN_IF_ERROR(CheckTensor(*found->second, tensor.name, tensor.dtype, tensor.ne,
                                      tensor.offset, kMetadataFile));
  }
  return base;
}

absl::Status CheckExpertHeader(const SafetensorsReader& reader, const ExpertLayout& layout,
                               uint64_t data_offset) {
  size_t parts = 0;
  for (ExpertPart part : kExpertParts) {
    if (!layout.has(part)) continue;
    ++parts;
    const ExpertTensor& tensor = layout.part(part);
    ODMOE_RETURN_IF_ERROR(CheckTensor(reader, std::string(ExpertPartName(part)), tensor.dtype,
                                      {tensor.columns, tensor.rows}, data_offset + tensor.offset,
                                      kRegistryFile));
  }
  if (reader.tensors().size() == parts) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(reader.file().path(), ": has ", reader.tensors().size(),
                                          " tensors, ", kRegistryFile, " says ", parts));
}

}  // namespace odmoe
