#include "converter/quantize/outtype.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

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
    {"tq1_0", OutType::kTQ1_0, DType::kTQ1_0, 36},
    {"tq2_0", OutType::kTQ2_0, DType::kTQ2_0, 37},
    // These three as bitnet.cpp numbers them: ggml's numbers are MXFP4_MOE's, NVFP4's and Q1_0's.
    {"tl1", OutType::kTL1, DType::kTL1, 38},
    {"tl2", OutType::kTL2, DType::kTL2, 39},
    {"i2_s", OutType::kI2_S, DType::kI2_S, 40},
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
  std::vector<absl::string_view> known;
  for (const OutTypeRow& row : kOutTypes) known.push_back(row.name);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown outtype '", text, "'; known: ", absl::StrJoin(known, ", ")));
}

uint32_t GgufFileType(OutType outtype) { return RowOf(outtype).file_type; }

bool IsTernaryOutType(OutType outtype) {
  return outtype == OutType::kTQ1_0 || outtype == OutType::kTQ2_0 || outtype == OutType::kI2_S ||
         outtype == OutType::kTL1 || outtype == OutType::kTL2;
}

DType TensorFormat(OutType outtype, absl::string_view name, const std::vector<int64_t>& ne) {
  if (StaysF32(name, ne)) return DType::kF32;
  const DType dtype = RowOf(outtype).dtype;
  if (IsTernaryOutType(outtype) && (name == "token_embd.weight" || name == "output.weight")) {
    return DType::kF16;
  }
  return ne[0] % Info(dtype).block_elements == 0 ? dtype : DType::kF16;
}

}  // namespace odmoe
