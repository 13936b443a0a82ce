// Splits a GGUF model into a model directory: each routed expert a file of its own, the rest in
// four. Bytes are copied, never converted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/output/output_plan.h"
#include "converter/output/write_output.h"
#include "converter/progress.h"
#include "services/core/formats/gguf_experts.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/model_index.h"
#include "services/core/io/file.h"

namespace odmoe {

// One file of base_model/ and what goes into it.
struct SplitBaseFile {
  std::string name;                          // "attention_layers.safetensors"
  std::vector<const GgufTensor*> tensors;    // in the order they are written
};

// Where every tensor goes. Refers to the model it was made from.
struct SplitPlan {
  std::string architecture;
  std::vector<GgufExpertLayer> layers;
  std::vector<SplitBaseFile> base_files;  // none without tensors
  absl::flat_hash_map<const GgufTensor*, ExpertTensorPlace> expert_tensors;
  uint64_t data_bytes = 0;                // tensor bytes, base model and experts
  uint64_t disk_bytes = 0;                // what the directory takes, headers and padding too
};

// NOT_FOUND: expert tensors are missing; the message has the names looked for and the nearest
// found. UNIMPLEMENTED: experts of one layer in more than one format.
// INVALID_ARGUMENT: no routed experts. DATA_LOSS: shapes that contradict the metadata.
absl::StatusOr<SplitPlan> PlanSplit(const GgufModel& model);

// The directory as an output, its registry the completing file. Its fingerprint is still to be set.
// Refers to `model` and `split`.
absl::StatusOr<OutputPlan> PlanModelDirectory(const GgufModel& model, const SplitPlan& split,
                                              const std::string& directory);

// The files of a model, its shards.
std::vector<const RandomAccessFile*> ModelFiles(const GgufModel& model);

// Writes the directory; see WriteOutput.
absl::Status SplitGguf(const GgufModel& model, const SplitPlan& split,
                       const std::string& directory, FileSystem& fs, const WriteOptions& options,
                       StepProgress& progress);

}  // namespace odmoe
