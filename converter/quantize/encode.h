// Encodes rows of floats in a weight format, byte for byte as ggml's reference quantizers do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

// Whether EncodeRows writes the format; the others can at most be decoded.
bool CanEncode(DType dtype);

// Encodes `values`, whole rows of `columns` each, at `out`, RowBytes(dtype, columns) a row. With
// `importance`, one weight a column (empty: none), errors are weighed by it in the formats that
// search for their scales; the others take no notice. Rows are encoded independently, so the bytes
// do not depend on how rows are dealt to calls. Runs on the calling thread; thread-safe.
// INVALID_ARGUMENT: not whole rows or blocks; a value that is NaN or infinite (names the first and
// its index); importance of another length, negative, NaN or infinite.
// UNIMPLEMENTED: a format that is only decoded (names it).
absl::Status EncodeRows(DType dtype, absl::Span<const float> values, int64_t columns,
                        absl::Span<const float> importance, std::byte* out);

}  // namespace odmoe
