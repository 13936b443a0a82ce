// The two JSON files of a model directory, written and read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"

namespace odmoe {

// Names inside a model directory.
inline constexpr char kBaseModelFolder[] = "base_model";
inline constexpr char kExpertsFolder[] = "experts";
inline constexpr char kMetadataFile[] = "base_model/metadata.json";
inline constexpr char kRegistryFile[] = "experts/registry.json";

// Where a tensor of the GGUF file went.
struct IndexedTensor {
  std::string name;          // its GGUF name
  DType dtype = DType::kF32;
  std::vector<int64_t> ne;   // GGUF order
  uint64_t bytes = 0;
  // A base-model tensor's place; `file` is empty for tensors whose bytes are experts'.
  std::string file;          // "attention_layers.safetensors", inside base_model/
  uint64_t offset = 0;       // from the file's first byte
  std::optional<uint64_t> xxh3;  // XXH3-64 of a base-model tensor's bytes, where it was recorded
  // Else the layer whose experts it holds; which parts of each, back to back (two where gate and up
  // are fused); and one expert, or -1: all of the layer, in order.
  int32_t expert_layer = -1;
  std::vector<ExpertPart> expert_parts;
  int32_t expert = -1;
};

// metadata.json: everything needed to put the GGUF file together again, byte for byte.
struct ModelIndex {
  GgufMetadata metadata;
  uint32_t gguf_version = 3;
  uint32_t gguf_alignment = kDefaultGgufAlignment;
  uint64_t gguf_bytes = 0;               // the file's size, so that padding at its end comes back
  std::vector<GgufPadding> gguf_padding; // by offset; most writers leave zeros, and this empty
  std::string model_digest;
  std::vector<IndexedTensor> tensors;    // all of them, in the file's order
};

// INVALID_ARGUMENT: a tensor name that is not UTF-8.
absl::StatusOr<std::string> EncodeModelIndex(const ModelIndex& index);
// NOT_FOUND: no metadata.json there. INVALID_ARGUMENT: not JSON. DATA_LOSS: it contradicts itself.
absl::StatusOr<ModelIndex> ReadModelIndex(FileSystem& fs, const std::string& model_directory);
// The same, of text; `where` names it in messages.
absl::StatusOr<ModelIndex> ParseModelIndex(absl::string_view text, const std::string& where);

// registry.json for experts whose files are named as ExpertName does, each `file_bytes` long with
// its data at `data_offset`. The catalog has every expert's hash.
std::string EncodeExpertRegistry(const ExpertCatalog& catalog,
                                 const std::vector<ExpertFile>& files);
// `model_directory` is put before the paths. Errors as ReadExpertRegistry's.
absl::StatusOr<ExpertRegistry> ParseExpertRegistry(absl::string_view text,
                                                   const std::string& model_directory,
                                                   const std::string& where);

// How a matrix lies in a safetensors file: natively, or as U8 rows with its ggml type and shape
// in the file's metadata.
struct StoredTensor {
  SafetensorsTensor tensor;
  std::map<std::string, std::string> metadata;
};
// INVALID_ARGUMENT: a shape the format cannot have.
absl::StatusOr<StoredTensor> StoreAs(const std::string& name, DType dtype,
                                     const std::vector<int64_t>& ne);

// Names the experts' bytes: XXH3-128, in hex, over each expert's id, formats, shapes and hash.
std::string ModelDigest(const std::vector<LayerExperts>& layers);

}  // namespace odmoe
