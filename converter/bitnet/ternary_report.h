// What a BitNet checkpoint consists of, and whether a file made of it consists of the same.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/bitnet/ternary_weights.h"
#include "services/core/io/file.h"

namespace odmoe {

// One ternary weight.
struct TernaryRow {
  std::string name;  // GGUF's: "blk.0.ffn_up.weight"
  int64_t rows = 0, columns = 0;
  bool packed = false;         // stored as two bits a weight; else to be rounded
  bool scale_divides = false;  // of packed ones: the stored scale is the inverse
  TernaryShares shares;
};

struct TernaryReport {
  std::string architecture;
  std::vector<TernaryRow> rows;

  TernaryShares Total() const;  // counts alone
};

// Counts all ternary weights of the checkpoint in `folder`; reads each once or, where they are to
// be rounded, twice. INVALID_ARGUMENT: no ternary weights in it. Otherwise as PlanGguf and
// CountTernary.
absl::StatusOr<TernaryReport> ReportTernary(FileSystem& fs, const std::string& folder);

// Reads the GGUF file `path` back: every weight of the report must have as many -1, 0 and 1, and
// one magnitude near the scale. `kernels`: of tl1 and tl2; else null. Returns how many weights it
// read. DATA_LOSS: a weight that is missing or differs (named, with both counts).
absl::StatusOr<int64_t> VerifyTernaryFile(FileSystem& fs, const std::string& path,
                                          const TernaryReport& report, const KernelConfig* kernels);

}  // namespace odmoe
