// A model as Hugging Face distributes it: a folder with config.json and safetensors files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// A weight and the file it lies in. Shape is row-major; rows are its outermost dimension.
struct CheckpointTensor {
  std::string name;  // without the "language_model." that multimodal checkpoints put in it
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const SafetensorsReader* file = nullptr;
  const SafetensorsTensor* stored = nullptr;

  const std::string& path() const { return file->file().path(); }
};

// The folder, its files' headers checked. Immutable, thread-safe.
class Checkpoint {
 public:
  // NOT_FOUND: no config.json, no safetensors files, or one that the index names is missing.
  // INVALID_ARGUMENT: not JSON; a part's name that leads out of the folder. DATA_LOSS: files that
  // contradict themselves or the index. UNIMPLEMENTED: weights stored quantized.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(FileSystem& fs,
                                                          const std::string& folder);
  ~Checkpoint();

  const std::string& folder() const { return folder_; }
  FileSystem& file_system() const { return fs_; }
  // config.json, a text_config's members lifted to the top.
  const nlohmann::json& config() const { return *config_; }
  // config.json's own `_name_or_path`; empty where there is none.
  std::string name_or_path() const;
  // The language model's: what multimodal checkpoints hold besides is left out. By file, and within one
  // by name as stored.
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }
  // Null: no such tensor.
  const CheckpointTensor* Find(absl::string_view name) const;

 private:
  Checkpoint(FileSystem& fs, std::string folder);
  absl::Status ReadConfig();
  absl::StatusOr<std::vector<std::string>> PartNames();
  absl::Status AddPart(const std::string& name);
  absl::Status CheckIndex() const;

  FileSystem& fs_;
  const std::string folder_;
  std::unique_ptr<nlohmann::json> config_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::vector<CheckpointTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  absl::flat_hash_set<std::string> stored_names_;  // with those left out
  // model.safetensors.index.json: the part each tensor should be in; empty without one.
  absl::flat_hash_map<std::string, std::string> index_;
};

// True where `folder` holds a config.json.
bool LooksLikeCheckpoint(FileSystem& fs, const std::string& folder);

}  // namespace odmoe
