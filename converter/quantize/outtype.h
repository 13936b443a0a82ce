// Which weight format each tensor of an output gets.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/gguf.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// What `--outtype` asks for.
enum class OutType { kAuto, kF32, kF16, kBF16, kQ8_0, kTQ1_0, kTQ2_0, kI2_S, kTL1, kTL2 };

// "f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0", "i2_s", "tl1", "tl2", "auto". INVALID_ARGUMENT
// lists them.
absl::StatusOr<OutType> ParseOutType(absl::string_view text);

// ggml's number for the mixture, `general.file_type`. Requires an outtype other than kAuto.
uint32_t GgufFileType(OutType outtype);

// Whether it is for weights that are -1, 0 and 1 times a scale.
bool IsTernaryOutType(OutType outtype);

// The format of a tensor by its GGUF name and shape: what is small and sensitive (one dimension,
// norms, the routers, anything that is not a weight) stays F32, and a row that is not whole blocks
// becomes F16, as embedding and head do where the rest is ternary. Requires an outtype other than
// kAuto.
DType TensorFormat(OutType outtype, absl::string_view name, const std::vector<int64_t>& ne);

}  // namespace odmoe
