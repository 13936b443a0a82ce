// Whether a converted BitNet model is what it should be.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "converter/bitnet/ternary_report.h"
#include "converter/convert.h"

namespace odmoe {

struct BitnetValidation {
  uint64_t bytes = 0;      // of the file
  int64_t weights = 0;     // ternary ones compared
  std::string text;        // a short greedy continuation; empty where none was made
  std::string generation;  // what was generated, or why nothing was, in words
};

// Checks the file that `plan` has made: its size, each ternary weight's distribution and scale
// against the checkpoint's (`report`), and that it loads and generates; for that a model directory
// is made beside it, and removed. tl1 and tl2 are BitNet's runtime's, and are not run. `kernels`:
// their .ini file, or empty. DATA_LOSS: it is not what it should be. INTERNAL: what it answers are
// not numbers.
absl::StatusOr<BitnetValidation> ValidateBitnetFile(const ConvertPlan& plan,
                                                    const TernaryReport& report,
                                                    const std::string& kernels);

}  // namespace odmoe
