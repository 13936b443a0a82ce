#include "services/expert_storage/policy/eviction_policy.h"

#include <algorithm>

namespace odmoe {

std::vector<int64_t> MostWantedFirst(std::vector<EvictionPolicy::Rank> ranks) {
  std::stable_sort(ranks.begin(), ranks.end(),
                   [](const auto& a, const auto& b) { return a.rank < b.rank; });
  std::vector<int64_t> experts;
  experts.reserve(ranks.size());
  for (const EvictionPolicy::Rank& rank : ranks) experts.push_back(rank.expert);
  return experts;
}

}  // namespace odmoe
