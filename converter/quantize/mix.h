// Mixes: what `odmoe quantize --type` asks for. A mix has one weight format for most tensors and
// rules that give the sensitive ones more bits. Each tensor gets the format that llama.cpp's
// quantizer (b10018) gives it, for dense models and mixtures of experts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/formats/gguf.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// Values are `general.file_type`'s.
enum class Mix : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 7,
  kQ5_0 = 8,
  kQ5_1 = 9,
  kQ2_K = 10,
  kQ3_K_S = 11,
  kQ3_K_M = 12,
  kQ3_K_L = 13,
  kQ4_K_S = 14,
  kQ4_K_M = 15,
  kQ5_K_S = 16,
  kQ5_K_M = 17,
  kQ6_K = 18,
  kQ2_K_S = 21,
  kIQ4_NL = 25,
  kBF16 = 32,
  kTQ1_0 = 36,
  kTQ2_0 = 37,
  kMXFP4_MoE = 38,
};

struct MixInfo {
  Mix mix;
  absl::string_view name;  // "q4_k_m"
  DType dtype;             // of most tensors
};

// Every mix offered, from few bits to many.
absl::Span<const MixInfo> AllMixes();
// By name in any case; "q3_k", "q4_k" and "q5_k" are the _m mixes. INVALID_ARGUMENT: one we do not
// offer, with the reason where it is known elsewhere, or unknown, with those there are.
absl::StatusOr<MixInfo> FindMix(absl::string_view name);

// What a user may say about single tensors, besides the mix.
struct MixOptions {
  bool pure = false;                 // the mix's format for all, without rules and fallbacks
  bool leave_output_tensor = false;  // output.weight stays as it is
  bool allow_requantize = false;     // also tensors that are quantized already
  bool force_ternary = false;        // tq1_0 and tq2_0 also of weights that are not ternary
  std::string output_tensor_type;    // of output.weight, a weight format's name; or ""
  std::string token_embedding_type;  // or ""
  // Each "REGEX=FORMAT": the first whose expression is found in a tensor's name decides, in any
  // case of its letters; in place of the rules, so not of `pure` and of mixes that are not
  // quantized.
  std::vector<std::string> tensor_types;

  bool operator==(const MixOptions&) const = default;
};

// The format a tensor gets.
struct MixChoice {
  DType dtype = DType::kF32;
  bool fell_back = false;         // its rows are no whole blocks of the format it should have had
  bool needs_importance = false;  // makes no sense without an importance matrix
};

// Parses the options' formats and expressions. INVALID_ARGUMENT: names the option that is wrong and
// what is known.
absl::Status CheckMixOptions(const MixOptions& options);

// For each of `tensors`, all of a model's in the order they will be written, without dimensions of
// one behind the others; `metadata` is the model's. INVALID_ARGUMENT: an option, an expression that
// takes too long, a format that is only decoded, rows that are no whole blocks of a format that has
// no fallback, layers that contradict the metadata, a tensor that is quantized already where
// `allow_requantize` is not set. Names the tensor.
absl::StatusOr<std::vector<MixChoice>> ChooseMixFormats(const MixInfo& mix,
                                                        const MixOptions& options,
                                                        bool has_importance,
                                                        const GgufMetadata& metadata,
                                                        absl::Span<const GgufTensor> tensors);

}  // namespace odmoe
