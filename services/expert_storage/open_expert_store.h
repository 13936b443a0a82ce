// From a model directory to a store of its experts, in one step.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/source_kind.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

struct OpenStoreOptions {
  std::string model_directory;
  Budget budget;
  SourceKind source = SourceKind::kAuto;
  bool prefetch = true;
  PolicyKind policy = PolicyKind::kDefault;
  bool use_memfd = false;  // for other processes to map; else private memory
};

// Opens the source that `kind` asks for over a model directory's experts. UNIMPLEMENTED: never for
// kAuto, which falls back; kDirect falls back to the page cache where there is no O_DIRECT.
// `in_use`, if not null, is set to what was taken.
absl::StatusOr<std::unique_ptr<ExpertSource>> OpenExpertSource(const std::string& model_directory,
                                                               SourceKind kind,
                                                               SourceKind* in_use = nullptr);

// Errors of ReadExpertRegistry, ResolveBudget and CachingExpertStore::Create.
absl::StatusOr<std::unique_ptr<CachingExpertStore>> OpenExpertStore(
    const OpenStoreOptions& options, SourceKind* source_in_use = nullptr);

// How many experts of a layer a token is routed to, by the model's metadata; 1 where the directory
// has none, as one of experts alone. Errors of ReadModelMetadata.
absl::StatusOr<uint64_t> ReadDemand(const std::string& model_directory);

// A store over a source that is open already; `demand` is the most experts one token asks of a
// layer.
absl::StatusOr<std::unique_ptr<CachingExpertStore>> MakeExpertStore(
    std::unique_ptr<ExpertSource> source, const OpenStoreOptions& options, uint64_t demand);

}  // namespace odmoe
