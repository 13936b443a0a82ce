#include "services/core/experts/budget.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

absl::Status NotABudget(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "not a budget: '", text, "'; write auto, a share such as 25%, or a size such as 1.5GiB"));
}

}  // namespace

absl::StatusOr<uint64_t> AutomaticBudgetBytes() {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t available, AvailableMemoryBytes());
  // The eighth is for the page tables, the other processes' growth and the kernel's own caches; the
  // rest is what the process itself needs beside the arena.
  const uint64_t reserve = available / 8 + 256 * kMiB;
  return available > reserve ? available - reserve : 0;
}

absl::StatusOr<Budget> ParseBudget(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  if (trimmed == "auto") return Budget{};
  Budget budget;
  if (!trimmed.empty() && trimmed.back() == '%') {
    const absl::string_view number =
        absl::StripAsciiWhitespace(trimmed.substr(0, trimmed.size() - 1));
    budget.kind = Budget::Kind::kPercent;
    // SimpleAtod also reads "inf" and "nan", which the comparison refuses.
    if (!absl::SimpleAtod(number, &budget.percent) ||
        !(budget.percent > 0.0 && budget.percent <= 100.0)) {
      return NotABudget(text);
    }
    return budget;
  }
  const absl::StatusOr<uint64_t> bytes = ParseByteSize(trimmed);
  if (!bytes.ok() || *bytes == 0) return NotABudget(text);
  budget.kind = Budget::Kind::kBytes;
  budget.bytes = *bytes;
  return budget;
}

absl::StatusOr<uint64_t> ResolveBudget(const Budget& budget, uint64_t total_bytes,
                                       uint64_t minimum_bytes) {
  uint64_t bytes = budget.bytes;
  if (budget.kind == Budget::Kind::kPercent) {
    if (!(budget.percent > 0.0 && budget.percent <= 100.0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("budget of ", budget.percent, "%: expected more than 0 and at most 100"));
    }
    bytes = static_cast<uint64_t>(std::floor(double(total_bytes) * (budget.percent / 100.0)));
  } else if (budget.kind == Budget::Kind::kAuto) {
    ODMOE_ASSIGN_OR_RETURN(bytes, AutomaticBudgetBytes());
  }
  bytes = std::min(bytes, total_bytes);
  if (bytes < minimum_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expert budget of ", bytes, " bytes (", FormatBytes(bytes),
                     ") is below what one layer demands, ", minimum_bytes, " bytes (",
                     FormatBytes(minimum_bytes), "); a budget must be at least that",
                     budget.kind == Budget::Kind::kAuto
                         ? ", or leave the process more memory: auto keeps a reserve"
                         : ""));
  }
  return bytes;
}

}  // namespace odmoe
