#include "converter/quantize/outtype.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

struct OutTypeRow {
  absl::string_view name;
  OutType outtype;
  DType dtype;
  uint32_t file_type;
};

constexpr OutTypeRow kOutTypes[] = {
    {"f32", OutType::kF32, DType::kF32, 0},
    {"f16", OutType::kF16, DType::kF16, 1},
    {"bf16", OutType::kBF16, DType::kBF16, 32},
    {"q8_0", OutType::kQ8_0, DType::kQ8_0, 7},
    {"auto", OutType::kAuto, DType::kF16, 1},
};

const OutTypeRow& RowOf(OutType outtype) {
  for (const OutTypeRow& row : kOutTypes) {
    if (row.outtype == outtype) return row;
  }
  return kOutTypes[0];  // every enumerator has its row above
}

bool StaysF32(absl::string_view name, const std::vector<int64_t>& ne) {
  if (ne.size() > 1 && (absl::EndsWith(name, ".lora_a") || absl::EndsWith(name, ".lora_b"))) {
    return false;
  }
  return ne.size() <= 1 || !absl::EndsWith(name, ".weight") ||
         absl::EndsWith(name, "_norm.weight") || absl::EndsWith(name, ".ffn_gate_inp.weight") ||
         absl::EndsWith(name, ".ffn_gate_inp_shexp.weight");
}

}  // namespace

absl::StatusOr<OutType> ParseOutType(absl::string_view text) {
  for (const OutTypeRow& row : kOutTypes) {
    if (row.name == text) return row.outtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown outtype '", text, "'; known: f32, f16, bf16, q8_0, auto"));
}

uint32_t GgufFileType(OutType outtype) { return RowOf(outtype).file_type; }

DType TensorFormat(OutType outtype, absl::string_view name, const std::vector<int64_t>& ne) {
  if (StaysF32(name, ne)) return DType::kF32;
  const DType dtype = RowOf(outtype).dtype;
  return ne[0] % Info(dtype).block_elements == 0 ? dtype : DType::kF16;
}

}  // namespace odmoe
