// The safetensors files of a model directory's base model, opened without mapping them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"

namespace odmoe {

// Immutable, thread-safe.
class BaseFiles {
 public:
  // Opens every file the index names, and checks that it has the index's tensors with their
  // formats, shapes and places. NOT_FOUND: a file is missing. DATA_LOSS: it says otherwise than the
  // index.
  static absl::StatusOr<BaseFiles> Open(FileSystem& fs, const std::string& model_directory,
                                        const ModelIndex& index);

  // The file of an index's tensor that has one.
  const SafetensorsReader& FileOf(const IndexedTensor& tensor) const {
    return *files_.at(tensor.file);
  }
  // By name inside base_model/.
  const absl::flat_hash_map<std::string, std::unique_ptr<SafetensorsReader>>& files() const {
    return files_;
  }

 private:
  absl::flat_hash_map<std::string, std::unique_ptr<SafetensorsReader>> files_;
};

// Checks that a safetensors file says of an expert what the registry says: its parts, their formats
// and places, and nothing else. DATA_LOSS: it does not.
absl::Status CheckExpertHeader(const SafetensorsReader& reader, const ExpertLayout& layout,
                               uint64_t data_offset);

}  // namespace odmoe
