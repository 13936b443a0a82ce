// Splits a GGUF file into a model directory: each routed expert a file of its own, the rest in four.
// Bytes are copied, never converted; memory stays at one copy buffer and the header.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/progress.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/model_index.h"
#include "services/core/io/file.h"

namespace odmoe {

// The stacked experts of one layer: three tensors of `expert_count` matrices each.
struct SplitLayer {
  int32_t layer = 0;
  int32_t expert_count = 0;
  const GgufTensor* w1 = nullptr;  // ffn_gate_exps, owned by the reader
  const GgufTensor* w2 = nullptr;  // ffn_down_exps
  const GgufTensor* w3 = nullptr;  // ffn_up_exps
  ExpertLayout layout;
};

// One file of base_model/ and what goes into it.
struct SplitBaseFile {
  std::string name;                          // "attention_layers.safetensors"
  std::vector<const GgufTensor*> tensors;    // in the order they are written
};

// Where every tensor goes. Refers to the reader it was made from.
struct SplitPlan {
  std::string architecture;
  std::vector<SplitLayer> layers;
  std::vector<SplitBaseFile> base_files;  // none without tensors
  uint64_t data_bytes = 0;                // tensor bytes, base model and experts
  uint64_t disk_bytes = 0;                // what the directory takes, headers and padding too
};

// NOT_FOUND: expert tensors are missing; the message has the names looked for and the nearest
// found. UNIMPLEMENTED: expert tensors in a form we do not split (fused, biased).
// INVALID_ARGUMENT: no routed experts. DATA_LOSS: shapes that contradict the metadata.
absl::StatusOr<SplitPlan> PlanSplit(const GgufReader& reader);

// Writes the directory; its registry last. A registry that is there from before is removed first.
// On failure or cancellation the files written are removed again.
absl::Status SplitGguf(const GgufReader& reader, const SplitPlan& plan,
                       const std::string& directory, FileSystem& fs, StepProgress& progress);

}  // namespace odmoe
