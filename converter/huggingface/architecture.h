// What the converter knows of a model family: its GGUF keys and how its tensors are renamed.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/output_tensor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// One model, its configuration checked. Immutable; refers to the checkpoint.
class Architecture {
 public:
  virtual ~Architecture() = default;
  // "deepseek2": general.architecture, and what its keys start with.
  virtual absl::string_view name() const = 0;
  // Tokens the model's vocabulary has, padding included.
  virtual int64_t vocabulary_size() const = 0;
  // The architecture's keys, in the order the reference converter writes them; `file_type` belongs
  // among them.
  virtual void AddKeys(GgufMetadata& metadata, uint32_t file_type) const = 0;
  // The output's tensors in order, their formats not chosen yet (dtype and bytes are unset).
  // NOT_FOUND: weights are missing. INVALID_ARGUMENT: a weight this family does not have.
  // DATA_LOSS: a shape that contradicts config.json.
  virtual absl::StatusOr<std::vector<OutputTensor>> MapTensors() const = 0;
};

// By config.json's `architectures`. INVALID_ARGUMENT: a family we do not know, or settings we do not
// convert.
absl::StatusOr<std::unique_ptr<Architecture>> FindArchitecture(const Checkpoint& checkpoint);

}  // namespace odmoe
