// Policies by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/expert_storage/policy/eviction_policy.h"
#include "services/expert_storage/policy/policy_layers.h"

namespace odmoe {

enum class PolicyKind { kDefault, kLru, kLfu, kLfru, kNextUse };

// All of them, the default first.
std::vector<PolicyKind> AllPolicyKinds();
// "default", "lru", "lfu", "lfru", "next-use".
absl::string_view PolicyKindName(PolicyKind kind);
// The inverse. INVALID_ARGUMENT: anything else, with the names there are.
absl::StatusOr<PolicyKind> ParseEvictionPolicy(absl::string_view name);

std::unique_ptr<EvictionPolicy> MakeEvictionPolicy(PolicyKind kind,
                                                   std::shared_ptr<const PolicyLayers> layers);

}  // namespace odmoe
