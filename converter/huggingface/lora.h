// A LoRA adapter of Hugging Face's PEFT as a GGUF adapter: <tensor>.lora_a and <tensor>.lora_b for
// each weight it changes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/huggingface/to_gguf.h"
#include "services/core/io/file.h"

namespace odmoe {

struct LoraOptions {
  std::string folder;      // adapter_config.json, adapter_model.safetensors
  std::string base_model;  // a folder with the base model's config.json; its weights are not needed
  OutType outtype = OutType::kAuto;
  std::vector<std::string> metadata;  // see metadata_overrides.h
};

// True where `folder` holds an adapter_config.json.
bool LooksLikeAdapter(FileSystem& fs, const std::string& folder);

// The plan's checkpoint is the adapter, its architecture the base model's.
// NOT_FOUND: a file is missing. INVALID_ARGUMENT: no base model given; an adapter of another kind
// than LoRA, or one that GGUF cannot express (DoRA, rank-stabilized scaling, an alpha of their own
// for some modules, changes to fused experts, to some experts of a layer, or to kv_b_proj); a
// weight that is neither half of a pair nor a norm, or that the base model does not have.
// DATA_LOSS: shapes that do not belong to each other or to the base model. UNIMPLEMENTED: quantized
// weights.
absl::StatusOr<GgufPlan> PlanLora(FileSystem& fs, const LoraOptions& options);

}  // namespace odmoe
