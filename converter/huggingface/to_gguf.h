// A Hugging Face checkpoint as one GGUF file.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/huggingface/architecture.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/quantize/outtype.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/io/file.h"

namespace odmoe {

struct ToGgufOptions {
  std::string folder;
  OutType outtype = OutType::kAuto;
  std::string pre_tokenizer;  // its name, where it should not be recognized; else empty
  bool vocab_only = false;    // keys alone; then no weights need be there
  int64_t pad_vocab = 0;  // the vocabulary, embedding and head grow to a multiple of it; 0: none
  std::string tensor_map;     // a file, see tensor_map.h; empty: by the architecture's rules
  std::vector<std::string> metadata;  // see metadata_overrides.h
  bool force_ternary = false;  // where the outtype is ternary, round weights that are not
  std::string kernel_config;   // of tl1 and tl2: the .ini file of the kernels; else empty
};

// The file to be: its header, and how each tensor is made. Owns the open checkpoint.
struct GgufPlan {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Architecture> architecture;
  std::unique_ptr<KernelConfig> kernels;  // where there are any
  std::list<CheckpointTensor> rounded;    // weights of the checkpoint's that are made ternary
  GgufHeader header;                   // laid out
  std::vector<OutputTensor> tensors;   // as header.tensors
  uint64_t data_bytes = 0;             // sum of the tensors'
  uint64_t file_bytes = 0;
  // What decides the tensors' bytes beside the checkpoint, its config.json and the header.
  std::string decisions;
};

// INVALID_ARGUMENT: a pad_vocab below 0 or above 2^20. Other errors as of
// Checkpoint::Open, FindArchitecture, MapTensors, TensorMap, ReadMetadataOverrides and
// AddTokenizerKeys.
absl::StatusOr<GgufPlan> PlanGguf(FileSystem& fs, const ToGgufOptions& options);

inline constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block formats

// Chooses the tensors' formats (names and shapes are set), and the number that names the mixture.
// kAuto keeps what the checkpoint has, and so its int4 packs where that is exact.
absl::StatusOr<uint32_t> ChooseFormats(const Checkpoint& checkpoint, OutType asked,
                                       std::vector<OutputTensor>& tensors);

// Lays the header out and works out the plan's sizes. Errors as of LayOutGgufTensors.
absl::Status LayOut(GgufPlan& plan);

}  // namespace odmoe
