// From a model directory to a store of its experts, in one step.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/experts/budget.h"
#include "services/expert_storage/caching_expert_store.h"
#include "services/expert_storage/sources/open_expert_source.h"

namespace odmoe {

struct OpenStoreOptions {
  std::string model_directory;  // or a GGUF file, or any shard of a split one
  Budget budget;
  SourceOptions source;
  bool prefetch = true;
  PolicyKind policy = PolicyKind::kDefault;
  TenantTable tenants;
  std::shared_ptr<SharedDisks> shared_disks;  // with the other stores on this host; null: alone
  bool shadow_policies = false;
  bool use_memfd = false;  // for other processes to map; else private memory
  HugePages huge_pages = HugePages::kAuto;
  bool lock_memory = false;
  std::function<void(uint64_t bytes, uint64_t of_bytes)> populated;  // while memory is taken
};

// Errors of OpenExpertSource, ResolveBudget and CachingExpertStore::Create.
absl::StatusOr<std::unique_ptr<CachingExpertStore>> OpenExpertStore(
    const OpenStoreOptions& options, SourceKind* source_in_use = nullptr);

// The disks that a model's experts are read from, as SharedDisks numbers them; none where nothing
// is there.
std::vector<uint64_t> DisksOf(const std::string& path, const SourceOptions& source);

// How many experts of a layer a token is routed to, by the model's metadata; 1 where the directory
// has none, as one of experts alone. Errors of ReadModelMetadata.
absl::StatusOr<uint64_t> ReadDemand(const std::string& model_directory);

// A store over a source that is open already; `demand` is the most experts one token asks of a
// layer.
absl::StatusOr<std::unique_ptr<CachingExpertStore>> MakeExpertStore(
    std::unique_ptr<ExpertSource> source, const OpenStoreOptions& options, uint64_t demand);

}  // namespace odmoe
