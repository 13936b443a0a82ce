#include "services/expert_storage/open_expert_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

std::vector<uint64_t> DisksOf(const std::string& path, const SourceOptions& source) {
  std::vector<std::string> paths = source.also;
  paths.push_back(path);
  std::vector<uint64_t> disks;
  for (const std::string& each : paths) {
    struct stat status = {};
    if (stat(each.c_str(), &status) == 0) disks.push_back(status.st_dev);
  }
  return disks;
}

absl::StatusOr<uint64_t> ReadDemand(const std::string& model_directory) {
  const absl::StatusOr<GgufMetadata> metadata = ReadModelMetadata(model_directory);
  // A directory of experts alone is a store's to serve.
  if (absl::IsNotFound(metadata.status())) return uint64_t{1};
  ODMOE_RETURN_IF_ERROR(metadata.status());
  ODMOE_ASSIGN_OR_RETURN(const std::string architecture,
                         metadata->GetStringOr("general.architecture", ""));
  ODMOE_ASSIGN_OR_RETURN(const uint32_t demand,
                         metadata->GetU32Or(absl::StrCat(architecture, ".expert_used_count"), 1));
  return std::max<uint64_t>(1, demand);
}

absl::StatusOr<std::unique_ptr<CachingExpertStore>> MakeExpertStore(
    std::unique_ptr<ExpertSource> source, const OpenStoreOptions& options, uint64_t demand) {
  const ExpertCatalog& catalog = source->catalog();
  const uint64_t experts = static_cast<uint64_t>(catalog.expert_count());
  const uint64_t slot_bytes = SlotBytes(catalog.max_expert_bytes());
  CachingExpertStore::Options store;
  ODMOE_ASSIGN_OR_RETURN(store.budget_bytes,
                         ResolveBudget(options.budget, experts * slot_bytes,
                                       std::min(demand, experts) * slot_bytes));
  store.prefetch = options.prefetch;
  store.policy = options.policy;
  store.shadow_policies = options.shadow_policies;
  store.shareable = options.use_memfd;
  store.demand = demand;
  store.tenants = options.tenants;
  store.shared_disks = options.shared_disks;
  if (store.shared_disks != nullptr) {
    store.disks = DisksOf(options.model_directory, options.source);
  }
  store.huge_pages = options.huge_pages;
  store.lock_memory = options.lock_memory;
  store.populated = options.populated;
  return CachingExpertStore::Create(std::move(source), std::move(store));
}

absl::StatusOr<std::unique_ptr<CachingExpertStore>> OpenExpertStore(const OpenStoreOptions& options,
                                                                    SourceKind* source_in_use) {
  ODMOE_ASSIGN_OR_RETURN(const uint64_t demand, ReadDemand(options.model_directory));
  ODMOE_ASSIGN_OR_RETURN(auto source, OpenExpertSource(options.model_directory, options.source,
                                                       source_in_use));
  return MakeExpertStore(std::move(source), options, demand);
}

}  // namespace odmoe
