// The model directory: what the converter writes, and expert storage and inference read.
//
//   base_model/  embeddings.safetensors  attention_layers.safetensors  norms.safetensors
//                lm_head.safetensors  metadata.json
//   experts/     layer_00_expert_000.safetensors ...  registry.json
//
// metadata.json has every GGUF key and value, typed and in order, and the index of the base model's
// tensors under their GGUF names. registry.json lists the experts. The registry is written last: a
// directory that has one is complete.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf.h"
#include "services/core/io/file.h"
#include "services/core/io/mapped_file.h"

namespace odmoe {

// An expert's bytes start at a multiple of this, so that they can be read with O_DIRECT.
inline constexpr uint64_t kExpertDataAlignment = 4096;

// One expert's file, as the registry has it.
struct ExpertFile {
  std::string path;          // absolute, or relative to the working directory, as the model's is
  uint64_t file_bytes = 0;
  uint64_t data_offset = 0;  // of the expert's first byte, a multiple of 4096
};

// registry.json, checked: paths stay inside the directory, one expert is one aligned extent.
struct ExpertRegistry {
  ExpertCatalog catalog;
  std::vector<ExpertFile> files;  // by ExpertCatalog::IndexOf
};

// Reads only the registry. NOT_FOUND: no model directory here, or one that is not complete.
// DATA_LOSS: a registry that contradicts itself. INVALID_ARGUMENT: not JSON.
absl::StatusOr<ExpertRegistry> ReadExpertRegistry(const std::string& model_directory,
                                                  FileSystem& fs = PosixFileSystem());

// The registry of a model without routed experts, whose directory has one like every other; nothing
// where there are experts, which is told without reading a large registry. Errors as above.
// `model` may be a GGUF file too, here and below.
absl::StatusOr<std::optional<ExpertRegistry>> ReadDenseRegistry(const std::string& model);

// A base-model tensor: bytes stay valid as long as the BaseModel. GGUF shape order.
struct BaseTensor {
  std::string name;  // the GGUF name, "blk.0.attn_q_a.weight"
  DType dtype = DType::kF32;
  std::vector<int64_t> ne;
  absl::Span<const std::byte> data;

  int64_t columns() const { return ne.empty() ? 0 : ne[0]; }
  int64_t rows() const;
};

// Everything that is not a routed expert, mapped. Immutable, thread-safe.
class BaseModel {
 public:
  // A model directory, or a GGUF file, or any shard of one whose others lie beside it: its tensors
  // are then mapped where they are. NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT as above.
  static absl::StatusOr<std::unique_ptr<BaseModel>> Open(const std::string& model);

  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<BaseTensor>& tensors() const { return tensors_; }
  // Null: no such tensor.
  const BaseTensor* Find(absl::string_view name) const;
  // Bytes of all base tensors.
  uint64_t total_bytes() const { return total_bytes_; }

 private:
  BaseModel() = default;
  static absl::StatusOr<std::unique_ptr<BaseModel>> OpenGguf(const std::string& path);
  void Add(BaseTensor tensor);

  GgufMetadata metadata_;
  std::vector<BaseTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  uint64_t total_bytes_ = 0;
};

// The GGUF keys alone, without mapping any tensor.
absl::StatusOr<GgufMetadata> ReadModelMetadata(const std::string& model);

}  // namespace odmoe
