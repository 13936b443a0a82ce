#include "services/expert_storage/tenants/tenant_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr size_t kMaxTenantNameBytes = 128;
constexpr double kMaxDiskShare = 1e6;

absl::Status BadTenant(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("tenant '", text, "': ", why, "; expected NAME[:cache=25%|SIZE][:disk=WEIGHT]"));
}

absl::Status ParseTenantShare(absl::string_view text, absl::string_view field, TenantSpec& spec) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(field, absl::MaxSplits('=', 1));
  if (parts.first == "cache") {
    const absl::StatusOr<Budget> cache = ParseBudget(parts.second);
    if (!cache.ok() || cache->kind == Budget::Kind::kAuto) {
      return BadTenant(text, absl::StrCat("'", parts.second, "' is no share (25%) or size (1GiB)"));
    }
    spec.cache = *cache;
    return absl::OkStatus();
  }
  if (parts.first == "disk") {
    if (!absl::SimpleAtod(parts.second, &spec.disk_share) ||
        !(spec.disk_share >= 1 / kMaxDiskShare && spec.disk_share <= kMaxDiskShare)) {
      return BadTenant(text, absl::StrCat("'", parts.second, "' is no weight above 0"));
    }
    return absl::OkStatus();
  }
  return BadTenant(text, absl::StrCat("unknown '", field, "'"));
}

}  // namespace

absl::StatusOr<TenantSpec> ParseTenant(absl::string_view text) {
  const std::vector<absl::string_view> fields = absl::StrSplit(text, ':');
  TenantSpec spec;
  spec.name = std::string(fields[0]);
  if (spec.name.empty() || spec.name.size() > kMaxTenantNameBytes) {
    return BadTenant(text, absl::StrCat("a name has 1 to ", kMaxTenantNameBytes, " bytes"));
  }
  for (size_t i = 1; i < fields.size(); ++i) {
    ODMOE_RETURN_IF_ERROR(ParseTenantShare(text, fields[i], spec));
  }
  return spec;
}

absl::StatusOr<TenantTable> TenantTable::Create(absl::Span<const TenantSpec> specs,
                                                bool listed_only) {
  TenantTable table;
  table.listed_only_ = listed_only;
  table.default_listed_ = false;
  for (const TenantSpec& spec : specs) {
    if (spec.name == table.tenants_[kDefault].name && !table.default_listed_) {
      table.tenants_[kDefault] = spec;
      table.default_listed_ = true;
      continue;
    }
    for (const TenantSpec& other : table.tenants_) {
      if (other.name == spec.name) {
        return absl::InvalidArgumentError(absl::StrCat("tenant '", spec.name, "' is given twice"));
      }
    }
    table.tenants_.push_back(spec);
  }
  if (table.tenants_.size() > kMaxTenants) {
    return absl::InvalidArgumentError(
        absl::StrCat(table.tenants_.size(), " tenants, at most ", kMaxTenants));
  }
  return table;
}

absl::StatusOr<int32_t> TenantTable::Find(absl::string_view name) const {
  for (int32_t tenant = 0; tenant < static_cast<int32_t>(size()); ++tenant) {
    const bool listed = tenant != kDefault || default_listed_ || !listed_only_;
    if (listed && tenants_[tenant].name == name) return tenant;
  }
  if (listed_only_ && !(name.empty() && default_listed_)) {
    return absl::PermissionDeniedError(
        name.empty() ? std::string("this store serves listed tenants only: name one (--tenant)")
                     : absl::StrCat("this store serves listed tenants only, not '", name, "'"));
  }
  return kDefault;
}

uint64_t TenantTable::QuotaBytes(int32_t tenant, uint64_t budget_bytes) const {
  const std::optional<Budget>& cache = tenants_[tenant].cache;
  if (!cache.has_value()) return budget_bytes;
  if (cache->kind == Budget::Kind::kBytes) return std::min(cache->bytes, budget_bytes);
  return static_cast<uint64_t>(static_cast<double>(budget_bytes) * cache->percent / 100.0);
}

bool TenantTable::has_quotas() const {
  return std::any_of(tenants_.begin(), tenants_.end(),
                     [](const TenantSpec& tenant) { return tenant.cache.has_value(); });
}

std::vector<double> TenantTable::disk_shares() const {
  std::vector<double> shares;
  for (const TenantSpec& tenant : tenants_) shares.push_back(tenant.disk_share);
  return shares;
}

}  // namespace odmoe
