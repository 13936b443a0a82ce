#include "services/core/tensor/dtype.h"

#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/i2_s.h"

namespace odmoe {
namespace {

constexpr DTypeInfo kFormats[] = {
    {DType::kF32, "f32", 1, 4, "F32"},        {DType::kF16, "f16", 1, 2, "F16"},
    {DType::kQ4_0, "q4_0", 32, 18, ""},       {DType::kQ4_1, "q4_1", 32, 20, ""},
    {DType::kQ5_0, "q5_0", 32, 22, ""},       {DType::kQ5_1, "q5_1", 32, 24, ""},
    {DType::kQ8_0, "q8_0", 32, 34, ""},       {DType::kQ8_1, "q8_1", 32, 36, ""},
    {DType::kQ2_K, "q2_K", 256, 84, ""},      {DType::kQ3_K, "q3_K", 256, 110, ""},
    {DType::kQ4_K, "q4_K", 256, 144, ""},     {DType::kQ5_K, "q5_K", 256, 176, ""},
    {DType::kQ6_K, "q6_K", 256, 210, ""},     {DType::kQ8_K, "q8_K", 256, 292, ""},
    {DType::kIQ2_XXS, "iq2_xxs", 256, 66, ""}, {DType::kIQ2_XS, "iq2_xs", 256, 74, ""},
    {DType::kIQ3_XXS, "iq3_xxs", 256, 98, ""}, {DType::kIQ1_S, "iq1_s", 256, 50, ""},
    {DType::kIQ4_NL, "iq4_nl", 32, 18, ""},   {DType::kIQ3_S, "iq3_s", 256, 110, ""},
    {DType::kIQ2_S, "iq2_s", 256, 82, ""},    {DType::kIQ4_XS, "iq4_xs", 256, 136, ""},
    {DType::kI8, "i8", 1, 1, "I8"},           {DType::kI16, "i16", 1, 2, "I16"},
    {DType::kI32, "i32", 1, 4, "I32"},        {DType::kI64, "i64", 1, 8, "I64"},
    {DType::kF64, "f64", 1, 8, "F64"},        {DType::kIQ1_M, "iq1_m", 256, 56, ""},
    {DType::kBF16, "bf16", 1, 2, "BF16"},     {DType::kTQ1_0, "tq1_0", 256, 54, ""},
    {DType::kTQ2_0, "tq2_0", 256, 66, ""},    {DType::kMXFP4, "mxfp4", 32, 17, ""},
    {DType::kNVFP4, "nvfp4", 64, 36, ""},     {DType::kQ1_0, "q1_0", 128, 18, ""},
    {DType::kQ2_0, "q2_0", 64, 18, ""},
    {DType::kI2_S, "i2_s", 128, 32, ""},
    {DType::kTL1, "tl1", 1, 0, ""},           {DType::kTL2, "tl2", 1, 0, ""},
};

bool HasRows(const DTypeInfo& info) { return info.block_bytes > 0; }

// BitNet's tl1: four bits a pair of weights.
absl::StatusOr<uint64_t> TL1Bytes(uint64_t elements) {
  if (elements % 4 == 0) return elements / 4;
  return absl::InvalidArgumentError(
      absl::StrCat(elements, " weights are no whole number of tl1's quadruples"));
}

// BitNet's tl2: five bits a triple of weights, and four a pair in the last 256 columns, for which
// room is kept whether the tiling needs it or not. Its own integer arithmetic, in its order.
absl::StatusOr<uint64_t> TL2Bytes(uint64_t columns, uint64_t rows) {
  constexpr uint64_t kPairColumns = 256;
  if (columns <= kPairColumns) {
    return absl::InvalidArgumentError(
        absl::StrCat("tl2 needs more than ", kPairColumns, " columns, got ", columns));
  }
  return (columns - kPairColumns) * rows / 3 * 5 / 8 + kPairColumns * rows / 2 * 4 / 8;
}

struct RemovedFormat {
  uint32_t id;
  absl::string_view name;
  absl::string_view advice;
};

constexpr RemovedFormat kRemoved[] = {
    {4, "q4_2", ""},
    {5, "q4_3", ""},
    {31, "q4_0_4_4", "; q4_0 has the same values"},
    {32, "q4_0_4_8", "; q4_0 has the same values"},
    {33, "q4_0_8_8", "; q4_0 has the same values"},
    {36, "iq4_nl_4_4",
     "; iq4_nl has the same values (BitNet's own builds write i2_s under this id)"},
    {37, "iq4_nl_4_8", "; iq4_nl has the same values"},
    {38, "iq4_nl_8_8", "; iq4_nl has the same values"},
};

}  // namespace

absl::Span<const DTypeInfo> AllDTypes() {
  constexpr size_t kTiled = 2;  // the last
  return absl::MakeConstSpan(kFormats, std::size(kFormats) - kTiled);
}

absl::StatusOr<DTypeInfo> FindDType(uint32_t ggml_type_id) {
  for (const DTypeInfo& info : kFormats) {
    if (!IsBitnetDType(info.dtype) && GgmlTypeId(info.dtype) == ggml_type_id) return info;
  }
  for (const RemovedFormat& removed : kRemoved) {
    if (removed.id != ggml_type_id) continue;
    return absl::InvalidArgumentError(absl::StrCat("ggml type ", ggml_type_id, " (", removed.name,
                                                   ") was removed from ggml", removed.advice));
  }
  return absl::InvalidArgumentError(absl::StrCat("ggml type ", ggml_type_id, " is unknown"));
}

absl::StatusOr<DTypeInfo> FindBitnetDType(uint32_t ggml_type_id) {
  for (const DType dtype : {DType::kI2_S, DType::kTL1}) {
    if (GgmlTypeId(dtype) == ggml_type_id) return Info(dtype);
  }
  return FindDType(ggml_type_id);
}

bool IsBitnetDType(DType dtype) { return static_cast<uint32_t>(dtype) >= kBitnetIds; }

uint32_t GgmlTypeId(DType dtype) { return static_cast<uint32_t>(dtype) & (kBitnetIds - 1); }

absl::StatusOr<DTypeInfo> FindDType(absl::string_view name) {
  std::vector<absl::string_view> known;
  for (const DTypeInfo& info : kFormats) {
    if (absl::EqualsIgnoreCase(info.name, name)) return info;
    known.push_back(info.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown weight format '", name, "'; known: ",
                                                 absl::StrJoin(known, ", ")));
}

const DTypeInfo& Info(DType dtype) {
  for (const DTypeInfo& info : kFormats) {
    if (info.dtype == dtype) return info;
  }
  return kFormats[0];  // every enumerator has its row above
}

absl::StatusOr<uint64_t> RowBytes(DType dtype, int64_t columns) {
  const DTypeInfo& info = Info(dtype);
  if (columns < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a row of ", columns, " elements"));
  }
  if (!HasRows(info)) {
    return absl::InvalidArgumentError(
        absl::StrCat(info.name, " lies in tiles of BitNet's kernels and has no rows"));
  }
  const uint64_t elements = static_cast<uint64_t>(columns);
  if (elements % info.block_elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a row of ", columns,
                                                   " elements is not a whole ", "number of ",
                                                   info.name, " blocks of ", info.block_elements));
  }
  const uint64_t blocks = elements / info.block_elements;
  if (blocks > std::numeric_limits<uint64_t>::max() / info.block_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a row of ", columns, " ", info.name, " elements is too large"));
  }
  return blocks * info.block_bytes;
}

absl::StatusOr<uint64_t> TensorBytes(DType dtype, int64_t columns, int64_t rows) {
  if (columns < 1 || rows < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor of ", rows, " rows of ", columns));
  }
  if (HasRows(Info(dtype))) {
    const uint64_t behind = dtype == DType::kI2_S ? kI2_SScaleBytes : 0;
    ODMOE_ASSIGN_OR_RETURN(uint64_t bytes, RowBytes(dtype, columns));
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(rows), &bytes) ||
        bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) - behind) {
      return absl::InvalidArgumentError("the product of its dimensions is too large");
    }
    return bytes + behind;
  }
  uint64_t elements = 0;
  // 2^58 leaves the sizes room for their factors.
  if (__builtin_mul_overflow(static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
                             &elements) ||
      elements > uint64_t{1} << 58) {
    return absl::InvalidArgumentError("the product of its dimensions is too large");
  }
  return dtype == DType::kTL1 ? TL1Bytes(elements)
                              : TL2Bytes(static_cast<uint64_t>(columns),
                                         static_cast<uint64_t>(rows));
}

}  // namespace odmoe
