// The general.* keys of a converted checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "converter/huggingface/checkpoint.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Appends general.{type,sampling.*,name,size_label}. The name is the folder's, as a title; the
// sampling recommendations are generation_config.json's. DATA_LOSS: that file is damaged.
absl::Status AddGeneralKeys(const Checkpoint& checkpoint, const std::vector<GgufTensor>& tensors,
                            GgufMetadata& metadata);

// "7.2B", or "16x5.6M" for experts: how many, times the parameters one pass through the model with
// a single expert a layer would use.
std::string SizeLabel(const std::vector<GgufTensor>& tensors);

}  // namespace odmoe
