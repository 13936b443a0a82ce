// Planning of outputs in ternary formats.
#pragma once

#include <list>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/huggingface/checkpoint.h"
#include "converter/huggingface/output_tensor.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Says of tl1 and tl2 models for which kernels they are: KernelHash.
inline constexpr char kKernelHashKey[] = "odmoe.bitnet_kernels.xxh3";

struct TernaryOptions {
  bool force = false;                     // round weights that are not ternary
  const KernelConfig* kernels = nullptr;  // for tl1 and tl2; outlives the tensors
};

// Makes tensors whose format (info.dtype) is ternary fit it: their weights must be ternary, or are
// plain and prove to be (a pass over each), or are to be rounded; i2_s gets its scale behind the
// rows, tl1 and tl2 their tiles and a tensor "<name>_scale". `rounded` owns what the tensors then
// refer to. FAILED_PRECONDITION: weights that are not ternary, with the measured cosine, and no
// `force`. INVALID_ARGUMENT: formats that only BitNet's runtime knows, for another architecture; no
// kernels, or none for a matrix.
absl::Status PlanTernaryTensors(absl::string_view architecture, const TernaryOptions& options,
                                std::vector<OutputTensor>& tensors,
                                std::list<CheckpointTensor>& rounded);

}  // namespace odmoe
