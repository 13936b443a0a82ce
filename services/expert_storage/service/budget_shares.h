// One budget for several models.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/core/experts/budget.h"

namespace odmoe {

// A model that wants a part of the budget.
struct ShareRequest {
  std::string name;
  Budget budget;               // a percentage is of the model's own experts
  uint64_t minimum_bytes = 0;  // one layer's demand
  uint64_t all_bytes = 0;      // of all its experts: it can use no more
};

// What each gets of `total_bytes`: who asks for a size gets it; those that ask for `auto` share the
// rest evenly, but that nobody gets less than its minimum or more than it can use. The sum is at
// most the total. RESOURCE_EXHAUSTED: it is not enough, with everyone's figures.
absl::StatusOr<std::vector<uint64_t>> ShareBudget(uint64_t total_bytes,
                                                  absl::Span<const ShareRequest> requests);

}  // namespace odmoe
