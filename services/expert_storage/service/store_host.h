// The models this process serves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/core/base/thread_pool.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/expert_storage/restart/warm_restart.h"
#include "services/expert_storage/service/budget_shares.h"

namespace odmoe {

// A model that is open. Immutable but for the store, which is thread-safe.
struct HostedModel {
  std::string name;       // the directory's last component
  std::string directory;  // canonical
  SourceKind source = SourceKind::kAuto;  // in use
  absl::Time opened;
  std::unique_ptr<CachingExpertStore> store;
  std::unique_ptr<WarmRestart> restart;  // null: nothing is kept; after the store, which it uses
};

// Opens and closes models below the allowed roots, each with a store of its own, all under one
// budget. A model is given a budget of its own, or `auto`: then it has an even share of what the
// others leave. Opening a model takes from those that are `auto`, as far as their minimum; closing
// one gives it back to them. Thread-safe; one thing changes at a time, and takes as long as it
// must.
class StoreHost {
 public:
  struct Options {
    std::vector<std::string> roots;  // folders that clients may open models in; none: nothing
    bool prefetch = true;
    PolicyKind policy = PolicyKind::kDefault;
    TenantTable tenants;         // of every model
    WarmRestart::Options restart;  // no directory: working sets are not kept over restarts
    bool shadow_policies = true;
    // For all models together: a percentage is of all their experts, `auto` what the machine leaves
    // when the first is opened.
    Budget total;
    HugePages huge_pages = HugePages::kAuto;
    bool lock_memory = false;
    // Told while a model's memory is populated.
    std::function<void(const std::string& model, uint64_t bytes, uint64_t of_bytes)> populated;
  };
  explicit StoreHost(Options options);
  ~StoreHost();

  // For a client: PERMISSION_DENIED where the path, its links resolved, lies below no root.
  // NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED, FAILED_PRECONDITION: as OpenModel in the contract.
  absl::StatusOr<std::shared_ptr<HostedModel>> OpenForClient(const std::string& path,
                                                             const Budget& budget,
                                                             SourceKind source);
  // For who starts the process: any path.
  absl::StatusOr<std::shared_ptr<HostedModel>> Open(const std::string& path, const Budget& budget,
                                                    const SourceOptions& source);
  // A shareable store that was made elsewhere: what it has is not the others', but it is not given
  // more or less by itself. Its working set is kept as the others'. FAILED_PRECONDITION: a model of
  // that name is open. Errors of WarmRestart::Start.
  absl::Status Serve(std::string name, std::unique_ptr<CachingExpertStore> store);
  // What is being streamed from it goes on, and keeps its memory until it has ended.
  // FAILED_PRECONDITION: sessions are open on it.
  absl::Status Close(absl::string_view name);

  // Another budget for a model, or for all together. By `deadline`. Errors of ShareBudget and
  // CachingExpertStore::Resize; NOT_FOUND, INVALID_ARGUMENT as Find.
  absl::Status Resize(absl::string_view name, const Budget& budget, absl::Time deadline);
  absl::Status ResizeTotal(const Budget& budget, absl::Time deadline);

  // Empty name: the only one. NOT_FOUND; INVALID_ARGUMENT: no name, and several are open.
  absl::StatusOr<std::shared_ptr<HostedModel>> Find(absl::string_view name) const;
  // The same for who has seen the model before. FAILED_PRECONDITION: `digest`, unless empty, is
  // another model's. ABORTED: `epoch`, unless 0, has passed: it was another store's.
  absl::StatusOr<std::shared_ptr<HostedModel>> FindMeant(absl::string_view name, int64_t epoch,
                                                         absl::string_view digest) const;
  // A session begins on a model. Errors of Find and CachingExpertStore::AttachClient.
  struct Attached {
    std::shared_ptr<HostedModel> model;
    std::shared_ptr<StoreClient> client;
  };
  absl::StatusOr<Attached> Attach(absl::string_view name, std::string client_name,
                                  absl::string_view tenant = "");
  std::vector<std::shared_ptr<HostedModel>> List() const;

 private:
  // A model with a part of the budget. What it asks for is changed under both mutexes.
  struct Member {
    std::shared_ptr<HostedModel> model;
    ShareRequest request;
    bool shares = true;  // false: made elsewhere
  };

  absl::StatusOr<std::string> Allowed(const std::string& path) const;
  absl::StatusOr<std::shared_ptr<HostedModel>> FindLocked(absl::string_view name) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::shared_ptr<HostedModel>> OpenNew(std::shared_ptr<HostedModel> model,
                                                       const Budget& budget,
                                                       const SourceOptions& source)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  // Starts to, if the options say so. Errors of WarmRestart::Start.
  absl::Status KeepWorkingSet(HostedModel& model) const;
  // Those that share the budget.
  std::vector<Member> Sharing() const ABSL_LOCKS_EXCLUDED(mutex_);
  // `total` for those that ask so.
  absl::StatusOr<uint64_t> TotalBytes(const Budget& total, absl::Span<const ShareRequest> requests)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  // Gives each of `members` its share: first who gets less, then, unless `shrink_only`, who gets
  // more. Where one cannot, those before are given back what they had.
  absl::Status Redistribute(const std::vector<Member>& members, absl::Span<const uint64_t> shares,
                            bool shrink_only, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  // Waits until nobody else has the closed model. False: the host ends.
  bool AwaitUnused(const std::shared_ptr<HostedModel>& closed) ABSL_LOCKS_EXCLUDED(mutex_);
  // Shares anew what there is, as far as it goes: after a model has gone, or was not opened.
  void ShareAnew() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  absl::Status Reshare(const Budget& total, const std::vector<Member>& members,
                       absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);

  const Options options_;
  // Of all models that are opened here: by their files, whoever's they are.
  const std::shared_ptr<SharedDisks> shared_disks_ = std::make_shared<SharedDisks>();
  absl::Mutex change_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  Budget total_ ABSL_GUARDED_BY(change_mutex_);
  uint64_t closing_bytes_ ABSL_GUARDED_BY(change_mutex_) = 0;  // of closed models still in use
  mutable absl::Mutex mutex_;
  std::vector<Member> members_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ThreadPool closers_;  // last: its threads use the rest
};

}  // namespace odmoe
