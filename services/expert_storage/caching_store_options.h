// How a CachingExpertStore is made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/loads/shared_disks.h"
#include "services/expert_storage/policy/make_policy.h"
#include "services/expert_storage/tenants/tenant_table.h"

namespace odmoe {

struct CachingStoreOptions {
  uint64_t budget_bytes = 0;  // of which whole slots are used
  uint64_t demand = 1;        // experts of a layer that one token asks for
  bool prefetch = true;
  bool shareable = false;                  // memory lies in memfds, for other processes
  HugePages huge_pages = HugePages::kAuto;
  bool lock_memory = false;                // where the system allows it
  uint32_t segment_slots = 0;              // of the arena; 0: chosen
  // How long a client's process may take to map or unmap segments when the budget changes:
  // milliseconds a gigabyte, and what the scheduler needs.
  absl::Duration client_patience = absl::Seconds(10);
  // Told while the arena is populated, which takes a second for some gigabytes.
  std::function<void(uint64_t bytes, uint64_t of_bytes)> populated;
  PolicyKind policy = PolicyKind::kDefault;
  bool shadow_policies = false;  // the other policies follow, to tell what they would have hit
  TenantTable tenants;           // the same in all stores that share a disk
  absl::Duration stalled_after;  // ReadsUnderWay::Options::stalled_after
  // The disks that the source reads, numbered as other stores number them, if there are any.
  std::shared_ptr<SharedDisks> shared_disks;
  std::vector<uint64_t> disks;
};

}  // namespace odmoe
