// On whose account clients ask for experts: names, shares of the memory and of the disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/experts/budget.h"
#include "services/expert_storage/policy/eviction_policy.h"

namespace odmoe {

// One tenant as the operator gives it.
struct TenantSpec {
  std::string name;
  std::optional<Budget> cache;  // the most its experts may take: bytes, or percent of the budget
  double disk_share = 1.0;      // weight against the other tenants, above 0
};

// "NAME[:cache=25%|SIZE][:disk=WEIGHT]". INVALID_ARGUMENT: anything else.
absl::StatusOr<TenantSpec> ParseTenant(absl::string_view text);

// The tenants of a store, numbered from 0 without gaps; 0 is the default one, which is always
// there. A client belongs to one tenant. Immutable, so thread-safe.
class TenantTable {
 public:
  static constexpr int32_t kDefault = kDefaultTenant;
  static constexpr size_t kMaxTenants = 64;

  // The default tenant alone.
  TenantTable() : tenants_(1, {"default", std::nullopt, 1.0}) {}
  // `listed_only`: clients that name no tenant of `specs` are refused; else they are the default
  // tenant's. A spec named "default" sets that one's shares. INVALID_ARGUMENT: a name twice, or
  // more than kMaxTenants.
  static absl::StatusOr<TenantTable> Create(absl::Span<const TenantSpec> specs, bool listed_only);

  size_t size() const { return tenants_.size(); }
  const TenantSpec& operator[](int32_t tenant) const { return tenants_[tenant]; }
  // The tenant of a client that says this name; empty: it says none. PERMISSION_DENIED: refused.
  absl::StatusOr<int32_t> Find(absl::string_view name) const;
  // The most bytes the tenant's experts may take of a budget; the whole budget where it has no
  // quota.
  uint64_t QuotaBytes(int32_t tenant, uint64_t budget_bytes) const;
  // True where some tenant may take less than everything.
  bool has_quotas() const;
  std::vector<double> disk_shares() const;

 private:
  std::vector<TenantSpec> tenants_;
  bool listed_only_ = false;
  bool default_listed_ = true;
};

}  // namespace odmoe
