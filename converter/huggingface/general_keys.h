// The general.* keys of a converted checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/core/formats/gguf.h"
#include "services/core/io/file.h"

namespace odmoe {

// How many weights a model has.
struct ParameterCount {
  int64_t total = 0;         // negative for a LoRA adapter: of the matrices it changes
  int64_t shared = 0;        // all but the routed experts'
  int64_t expert = 0;        // of one expert a layer
  int64_t expert_count = 0;  // a layer's
};
ParameterCount CountParameters(const std::vector<GgufTensor>& tensors);

// "7.2B", or "16x5.6M" for experts: how many, times the parameters one pass through the model with
// a single expert a layer would use.
std::string SizeLabel(const ParameterCount& count);

// Appends general.{sampling.*,name,author,version,organization,finetune,basename,description,
// size_label,license*,source.*,base_model.*,dataset.*,tags,languages}: what generation_config.json
// and the model card (README.md) in `folder` say, then what `name_or_path` (config.json's, may be
// empty) and the folder's name let one guess. DATA_LOSS: generation_config.json is damaged.
absl::Status AddGeneralKeys(FileSystem& fs, const std::string& folder,
                            const std::string& name_or_path,
                            const std::vector<GgufTensor>& tensors, GgufMetadata& metadata);

}  // namespace odmoe
