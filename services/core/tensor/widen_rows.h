// Rows of halves as floats, in vectors: F16ToF32 and BF16ToF32 of every number, but that a
// signalling NaN may come out quiet. `in` need not be aligned. Pure functions.
#pragma once

#include <cstddef>

#include "absl/types/span.h"

namespace odmoe {

void WidenF16Row(const std::byte* in, absl::Span<float> values);
void WidenBF16Row(const std::byte* in, absl::Span<float> values);

}  // namespace odmoe
