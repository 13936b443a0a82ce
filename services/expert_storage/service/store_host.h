// The model this process serves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/expert_storage/restart/warm_restart.h"

namespace odmoe {

// A model that is open. Immutable but for the store, which is thread-safe.
struct HostedModel {
  std::string name;       // the directory's last component
  std::string directory;  // canonical
  Budget budget;          // as asked for
  SourceKind source = SourceKind::kAuto;  // in use
  absl::Time opened;
  std::unique_ptr<CachingExpertStore> store;
  std::unique_ptr<WarmRestart> restart;  // null: nothing is kept; after the store, which it uses
};

// Opens and closes models below the allowed roots, one at a time. Thread-safe.
class StoreHost {
 public:
  struct Options {
    std::vector<std::string> roots;  // folders that clients may open models in; none: nothing
    bool prefetch = true;
    PolicyKind policy = PolicyKind::kDefault;
    TenantTable tenants;         // of every model
    WarmRestart::Options restart;  // no directory: working sets are not kept over restarts
    bool shadow_policies = true;
  };
  explicit StoreHost(Options options) : options_(std::move(options)) {}

  // For a client: PERMISSION_DENIED where the path, its links resolved, lies below no root.
  // NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED, FAILED_PRECONDITION: as OpenModel in the contract.
  absl::StatusOr<std::shared_ptr<HostedModel>> OpenForClient(const std::string& path,
                                                             const Budget& budget,
                                                             SourceKind source);
  // For who starts the process: any path.
  absl::StatusOr<std::shared_ptr<HostedModel>> Open(const std::string& path, const Budget& budget,
                                                    const SourceOptions& source);
  // A shareable store that was made elsewhere. FAILED_PRECONDITION: another model is open.
  absl::Status Serve(std::string name, std::unique_ptr<CachingExpertStore> store);
  // FAILED_PRECONDITION: sessions are open on it.
  absl::Status Close(absl::string_view name);
  // Empty name: the only one. NOT_FOUND.
  absl::StatusOr<std::shared_ptr<HostedModel>> Find(absl::string_view name) const;
  // A session begins on a model. Errors of Find and CachingExpertStore::AttachClient.
  struct Attached {
    std::shared_ptr<HostedModel> model;
    std::shared_ptr<StoreClient> client;
  };
  absl::StatusOr<Attached> Attach(absl::string_view name, std::string client_name,
                                  absl::string_view tenant = "");
  std::vector<std::shared_ptr<HostedModel>> List() const;

 private:
  absl::StatusOr<std::string> Allowed(const std::string& path) const;
  absl::StatusOr<std::shared_ptr<HostedModel>> FindLocked(absl::string_view name) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<HostedModel> model_ ABSL_GUARDED_BY(mutex_);
  bool opening_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace odmoe
