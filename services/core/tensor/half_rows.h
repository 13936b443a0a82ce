// Rows of halves to and from floats, in vectors: F16ToF32, F32ToF16 and their bf16 twins of every
// number, but that a signalling NaN may come out quiet when it is widened. Bytes need not be
// aligned. Pure functions.
#pragma once

#include <cstddef>

#include "absl/types/span.h"

namespace odmoe {

void WidenF16Row(const std::byte* in, absl::Span<float> values);
void WidenBF16Row(const std::byte* in, absl::Span<float> values);
void NarrowF16Row(absl::Span<const float> values, std::byte* out);
void NarrowBF16Row(absl::Span<const float> values, std::byte* out);

}  // namespace odmoe
