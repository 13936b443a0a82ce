// Number formats of weights, by ggml's ids, which GGUF files carry.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace odmoe {

// Values are ggml's type ids. A weight is a matrix of rows, each a whole number of blocks. Formats
// from kBitnetIds on are those of BitNet's own ggml, which gave ids away that ggml uses otherwise:
// theirs is what is left without kBitnetIds, and the model's architecture says which is meant.
inline constexpr uint32_t kBitnetIds = 0x10000;
enum class DType : uint32_t {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ8_1 = 9,
  kQ2_K = 10, kQ3_K = 11, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kQ8_K = 15,
  kIQ2_XXS = 16, kIQ2_XS = 17, kIQ3_XXS = 18, kIQ1_S = 19, kIQ4_NL = 20, kIQ3_S = 21,
  kIQ2_S = 22, kIQ4_XS = 23, kI8 = 24, kI16 = 25, kI32 = 26, kI64 = 27, kF64 = 28,
  kIQ1_M = 29, kBF16 = 30, kTQ1_0 = 34, kTQ2_0 = 35, kMXFP4 = 39, kNVFP4 = 40, kQ1_0 = 41,
  kQ2_0 = 42,
  kI2_S = kBitnetIds + 36,  // two bits a weight, one scale a tensor behind its rows (i2_s.h)
  kTL1 = kBitnetIds + 38,   // tiled for one build of BitNet's kernels: no rows, only a tensor
  kTL2 = kBitnetIds + 39,
};

// How a format lies in memory.
struct DTypeInfo {
  DType dtype;
  absl::string_view name;        // "q8_0", as ggml and our flags spell it
  uint32_t block_elements;       // elements a block holds
  uint32_t block_bytes;          // bytes a block takes
  absl::string_view safetensors; // native safetensors dtype, or "" (then stored as U8 rows)
};

// Every format that has rows, by ascending id: all but tl1 and tl2.
absl::Span<const DTypeInfo> AllDTypes();

// INVALID_ARGUMENT: an id that is unknown or was removed from ggml; the message names what it was.
absl::StatusOr<DTypeInfo> FindDType(uint32_t ggml_type_id);
// By name, in any case. INVALID_ARGUMENT lists the names known.
absl::StatusOr<DTypeInfo> FindDType(absl::string_view name);
// The same where the model is one of BitNet's own: 36 is i2_s, 38 tl1. 39 may be mxfp4 or tl2,
// which only a tensor's place in its file tells: this gives mxfp4.
absl::StatusOr<DTypeInfo> FindBitnetDType(uint32_t ggml_type_id);
// Whether a format is known to BitNet's own ggml alone.
bool IsBitnetDType(DType dtype);
// The id that GGUF files carry for a format.
uint32_t GgmlTypeId(DType dtype);
// For an enumerator of DType; never fails.
const DTypeInfo& Info(DType dtype);

// Bytes of a row of `columns` elements. INVALID_ARGUMENT: not whole blocks, negative, or overflow;
// a format without rows.
absl::StatusOr<uint64_t> RowBytes(DType dtype, int64_t columns);

// Bytes of a whole tensor of `rows` rows: the rows, and what a format has behind them.
// INVALID_ARGUMENT: as above; a matrix that a tiled format has no tiling for.
absl::StatusOr<uint64_t> TensorBytes(DType dtype, int64_t columns, int64_t rows);

}  // namespace odmoe
