// The budget as a person gives it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

// Bytes the working set may take: a number of bytes, a share of all experts' bytes, or automatic.
struct Budget {
  enum class Kind { kAuto, kBytes, kPercent };
  Kind kind = Kind::kAuto;
  uint64_t bytes = 0;    // kBytes
  double percent = 0.0;  // kPercent, in (0, 100]
};

// "auto", "25%", "1.5GiB". INVALID_ARGUMENT: anything else.
absl::StatusOr<Budget> ParseBudget(absl::string_view text);

// The budget in bytes, never more than `total_bytes` (all experts, each rounded up to its slot).
// Automatic: what the machine and the cgroup leave now, minus a reserve of 1/8 and 256 MiB.
// RESOURCE_EXHAUSTED: less than `minimum_bytes` (what one layer demands), with both figures.
absl::StatusOr<uint64_t> ResolveBudget(const Budget& budget, uint64_t total_bytes,
                                       uint64_t minimum_bytes);

// What `auto` is now: what the machine and the cgroup leave, minus the reserve.
absl::StatusOr<uint64_t> AutomaticBudgetBytes();

}  // namespace odmoe
