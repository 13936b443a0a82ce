#include "services/expert_storage/policy/make_policy.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/expert_storage/policy/learned_policy.h"
#include "services/expert_storage/policy/lru_policy.h"
#include "services/expert_storage/policy/rate_policies.h"

namespace odmoe {

std::vector<PolicyKind> AllPolicyKinds() {
  return {PolicyKind::kDefault, PolicyKind::kLru, PolicyKind::kLfu, PolicyKind::kLfru,
          PolicyKind::kNextUse};
}

absl::string_view PolicyKindName(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kDefault:
      return "default";
    case PolicyKind::kLru:
      return "lru";
    case PolicyKind::kLfu:
      return "lfu";
    case PolicyKind::kLfru:
      return "lfru";
    case PolicyKind::kNextUse:
      return "next-use";
  }
  return "";
}

absl::StatusOr<PolicyKind> ParseEvictionPolicy(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const PolicyKind kind : AllPolicyKinds()) {
    names.push_back(PolicyKindName(kind));
    if (name == names.back()) return kind;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown eviction policy \"", name,
                                                 "\"; there are ", absl::StrJoin(names, ", ")));
}

std::unique_ptr<EvictionPolicy> MakeEvictionPolicy(PolicyKind kind,
                                                   std::shared_ptr<const PolicyLayers> layers) {
  switch (kind) {
    case PolicyKind::kDefault:
      break;
    case PolicyKind::kLru:
      return std::make_unique<LruPolicy>(layers->expert_count());
    case PolicyKind::kLfu:
      return std::make_unique<LfuPolicy>(std::move(layers));
    case PolicyKind::kLfru:
      return std::make_unique<LfruPolicy>(std::move(layers));
    case PolicyKind::kNextUse:
      return std::make_unique<NextUsePolicy>(std::move(layers));
  }
  return std::make_unique<LearnedPolicy>(std::move(layers));
}

}  // namespace odmoe
