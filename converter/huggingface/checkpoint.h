// A model as Hugging Face distributes it: a folder with config.json and safetensors files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// How a weight's numbers are stored.
enum class WeightEncoding {
  kPlain,  // in its dtype
  kFp8,    // F8_E4M3, times a scale
  kInt4,   // codes 0 to 15, eight to a 32-bit word, less 8, times a scale
  kTernaryPacked,   // codes 0 to 2, four to a byte, less 1, times a scale (converter/bitnet)
  kTernaryRounded,  // plain, and to be rounded to -1, 0 and 1 times a scale, as its layers do
};

// The one scale of a ternary weight: found out when first asked for, since rounding takes a pass
// over the weight.
struct TernaryScale {
  bool divides = false;        // of packed ones: weights are codes / scale instead of codes * scale
  bool keeps_ternary = false;  // of rounded ones: weights that are ternary already keep their scale
  absl::Mutex mutex;
  std::optional<float> value ABSL_GUARDED_BY(mutex);
};

// The scales of a quantized weight: a matrix with a row for every `block_rows` rows of the weight's
// and a column for every `block_columns` columns.
struct WeightScales {
  const SafetensorsReader* file = nullptr;
  const SafetensorsTensor* stored = nullptr;
  DType dtype = DType::kF32;
  int64_t block_rows = 1;
  int64_t block_columns = 1;
  int64_t columns = 0;
};

// A weight and the file it lies in. Shape is row-major; rows are its outermost dimension.
struct CheckpointTensor {
  std::string name;  // without the "language_model." that multimodal checkpoints put in it
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const SafetensorsReader* file = nullptr;
  const SafetensorsTensor* stored = nullptr;
  WeightEncoding encoding = WeightEncoding::kPlain;
  WeightScales scales = {};  // of a quantized one, whose dtype says nothing
  std::shared_ptr<TernaryScale> ternary = nullptr;  // of a ternary one

  const std::string& path() const { return file->file().path(); }
};

// The folder, its files' headers checked. Immutable, thread-safe.
class Checkpoint {
 public:
  // NOT_FOUND: no config.json, no safetensors files, or one that the index names is missing.
  // INVALID_ARGUMENT: not JSON; a part's name that leads out of the folder. DATA_LOSS: files that
  // contradict themselves or the index. UNIMPLEMENTED: weights quantized in a way we cannot read.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(FileSystem& fs,
                                                          const std::string& folder);
  // The configuration alone; there are no tensors. Errors as of Open for config.json.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenWithoutWeights(FileSystem& fs,
                                                                        const std::string& folder);
  // An adapter: adapter_model.safetensors in `folder`, and the adapter_config.json that was read.
  // Errors as of Open.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenAdapter(FileSystem& fs,
                                                                 const std::string& folder,
                                                                 nlohmann::json config);
  ~Checkpoint();

  const std::string& folder() const { return folder_; }
  FileSystem& file_system() const { return fs_; }
  // config.json, a text_config's members lifted to the top.
  const nlohmann::json& config() const { return *config_; }
  // config.json's own `_name_or_path`; empty where there is none.
  std::string name_or_path() const;
  // The language model's: what multimodal checkpoints hold besides is left out. By file, and within
  // one by name as stored.
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }
  // What most of the weights are: the format of the first matrix stored as BF16 or F16, else F16.
  DType main_dtype() const { return main_dtype_; }
  // Null: no such tensor.
  const CheckpointTensor* Find(absl::string_view name) const;

 private:
  Checkpoint(FileSystem& fs, std::string folder);
  absl::StatusOr<std::vector<std::string>> PartNames();
  absl::Status AddPart(const std::string& name);
  absl::Status CheckIndex() const;
  absl::Status CheckTensors();

  FileSystem& fs_;
  const std::string folder_;
  std::unique_ptr<nlohmann::json> config_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::vector<CheckpointTensor> tensors_;
  DType main_dtype_ = DType::kF16;
  absl::flat_hash_map<std::string, size_t> by_name_;
  absl::flat_hash_set<std::string> stored_names_;  // with those left out
  // model.safetensors.index.json: the part each tensor should be in; empty without one.
  absl::flat_hash_map<std::string, std::string> index_;
};

// A folder's config.json, a text_config's members lifted to the top. NOT_FOUND, INVALID_ARGUMENT
// (not JSON), DATA_LOSS (not an object).
absl::StatusOr<nlohmann::json> ReadModelConfigJson(FileSystem& fs, const std::string& folder);

// True where `folder` holds a config.json.
bool LooksLikeCheckpoint(FileSystem& fs, const std::string& folder);

}  // namespace odmoe
