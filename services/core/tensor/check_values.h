// Finds weights that cannot be: a NaN or an infinity makes every token NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// The first block, counted from the span's first byte, with a value or scale that is NaN or
// infinite (in MXFP4, of exponent 255). Formats that have no such codes (integers, NVFP4) always
// pass. A part of a block at the end is not looked at.
std::optional<uint64_t> FindNotFinite(DType dtype, absl::Span<const std::byte> data);

}  // namespace odmoe
