#include "services/expert_storage/service/budget_shares.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

// Raises all of `shares` that are at or below the level to it, as far as each can use it; takes
// what that costs from `rest`.
void FillEvenly(absl::Span<const ShareRequest> requests, std::vector<size_t> open, uint64_t rest,
                std::vector<uint64_t>& shares) {
  while (!open.empty() && rest > 0) {
    // The lowest rise to the next one's level, or to what one of them can use, or as far as it
    // goes.
    uint64_t level = ~uint64_t{0};
    for (size_t i : open) level = std::min(level, shares[i]);
    std::vector<size_t> lowest;
    uint64_t ceiling = ~uint64_t{0};
    for (size_t i : open) {
      if (shares[i] == level) {
        lowest.push_back(i);
        ceiling = std::min(ceiling, requests[i].all_bytes);
      } else {
        ceiling = std::min(ceiling, shares[i]);
      }
    }
    const uint64_t rise = std::min(ceiling - level, rest / lowest.size());
    for (size_t i : lowest) shares[i] += rise;
    rest -= rise * lowest.size();
    if (rise == 0) rest = 0;  // less than a byte each
    std::erase_if(open, [&](size_t i) { return shares[i] >= requests[i].all_bytes; });
  }
}

}  // namespace

absl::StatusOr<std::vector<uint64_t>> ShareBudget(uint64_t total_bytes,
                                                  absl::Span<const ShareRequest> requests) {
  std::vector<uint64_t> shares;
  std::vector<size_t> automatic;
  uint64_t given = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const ShareRequest& request = requests[i];
    shares.push_back(std::min(request.minimum_bytes, request.all_bytes));
    if (request.budget.kind == Budget::Kind::kAuto) {
      automatic.push_back(i);
    } else {
      ODMOE_ASSIGN_OR_RETURN(shares.back(), ResolveBudget(request.budget, request.all_bytes,
                                                          request.minimum_bytes));
    }
    given += shares.back();
  }
  if (given > total_bytes) {
    std::vector<std::string> wants;
    for (size_t i = 0; i < requests.size(); ++i) {
      const bool least = requests[i].budget.kind == Budget::Kind::kAuto;
      wants.push_back(absl::StrCat(requests[i].name, least ? " at least " : " ",
                                   FormatBytes(shares[i])));
    }
    return absl::ResourceExhaustedError(absl::StrCat(
        "the expert budget of ", total_bytes, " bytes (", FormatBytes(total_bytes),
        ") does not hold what its models ask for: ", absl::StrJoin(wants, ", "),
        "; close a model, give one less, or resize the total"));
  }
  FillEvenly(requests, std::move(automatic), total_bytes - given, shares);
  return shares;
}

}  // namespace odmoe
