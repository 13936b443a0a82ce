// Keeps weights that are not ternary out of formats that hold nothing else.
#pragma once

#include "absl/status/status.h"
#include "converter/quantize/quantized_output.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {

// Looks at the first 2^19 weights of each tensor that `output` turns into tq1_0 or tq2_0: in each
// block all that are not zero must have one magnitude, to a hundredth. FAILED_PRECONDITION: they do
// not; names the tensor, the share of zeros it would get and the cosine between what it is and what
// it would be. Otherwise errors of reading.
absl::Status CheckTernary(const GgufModel& source, const QuantizedOutput& output);

}  // namespace odmoe
