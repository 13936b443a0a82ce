// The working set of one model under a hard budget, for callers in this process and, through shared
// memory, in others.
//
// Locks: hits take none. A miss takes the store's mutex for a few list operations; no I/O, no hash
// and no callback runs under it. Reads complete on the source's threads, which hand the hashing of
// large experts to the store's own pool.
//
// Hold and wait: a batch keeps the pins it has while it waits for more. max_batch() is half of the
// slots, so two callers that hold one batch each can never wait for one another. More callers can,
// and two where the budget is below twice a layer's demand, which max_batch() always allows: then
// experts wait for slots in the order they were asked for, and a batch that gets none by its
// deadline fails with RESOURCE_EXHAUSTED, is destroyed, and frees its slots.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_source.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/pinned_batch.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/prefetch/prefetch_queue.h"
#include "services/expert_storage/store_client.h"
#include "services/expert_storage/working_set.h"

namespace odmoe {

// Experts a client found not resident.
struct Demand {
  std::shared_ptr<StoreClient> client;
  std::vector<int64_t> experts;  // distinct, in the catalog
  absl::Time deadline = absl::InfiniteFuture();
  const void* owner = nullptr;  // what Withdraw names it by
  // Called once for each position of `experts`, unless the demand is withdrawn first, with the
  // slot, pinned in the client's page and now the callee's to unpin, or why there is none. From any
  // thread, with no lock of the store held. Does not block.
  std::function<void(size_t position, absl::StatusOr<uint32_t> slot)> deliver;
};

class CachingExpertStore final : public ExpertStore, private BatchOwner {
 public:
  struct Options {
    uint64_t budget_bytes = 0;  // of which whole slots are used
    uint64_t demand = 1;        // experts of a layer that one token asks for
    bool prefetch = true;
    bool shareable = false;                  // memory lies in memfds, for other processes
    std::unique_ptr<EvictionPolicy> policy;  // null: LRU
  };

  // INVALID_ARGUMENT: a model without experts. RESOURCE_EXHAUSTED: a budget below one slot, or no
  // memory.
  static absl::StatusOr<std::unique_ptr<CachingExpertStore>> Create(
      std::unique_ptr<ExpertSource> source, Options options);
  // Waits for the reads under way. Every batch is gone before, every session ended.
  ~CachingExpertStore() override;

  const ExpertCatalog& catalog() const override { return source_->catalog(); }
  absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time deadline) override;
  bool Resident(ExpertId id) const override { return local_view_->Resident(id); }
  void Prefetch(absl::Span<const ExpertId> ids) override;
  size_t max_batch() const override { return max_batch_; }
  absl::StatusOr<StoreStats> Stats() override;

  // For the service; all thread-safe.
  int64_t epoch() const { return epoch_; }
  uint64_t budget_bytes() const { return budget_bytes_; }
  const Arena& arena() const { return *arena_; }
  const SharedRegion& table_region() const { return *table_region_; }
  // The caller in this process.
  const std::shared_ptr<StoreClient>& local_client() const { return local_client_; }
  // A session begins. RESOURCE_EXHAUSTED: too many clients.
  absl::StatusOr<std::shared_ptr<StoreClient>> AttachClient(std::string name);
  // The client's process is about to map its page. False: its session has ended, so it must not.
  bool BeginMapping(const std::shared_ptr<StoreClient>& client);
  // The process has no mapping any more.
  void EndMapping(const std::shared_ptr<StoreClient>& client);
  // The session has ended: its demands and prefetches are dropped at once. Its pins are dropped
  // when its process has no mapping any more: until then it may be reading what it has pinned.
  void EndSession(const std::shared_ptr<StoreClient>& client);
  // Serves a client's misses.
  void Serve(Demand demand);
  // Forgets an owner's demands; what is under way is read to its end. Deliveries that have begun
  // may still come.
  void Withdraw(const void* owner);
  // Prefetch for a client. `experts` in the catalog.
  void PrefetchFor(const std::shared_ptr<StoreClient>& client, absl::Span<const int64_t> experts);

 private:
  struct Waiter {
    size_t position;
    std::shared_ptr<const Demand> demand;
  };
  // One expert on its way in. Owned by loads_; kept from the assignment of a slot to Finish.
  struct Load {
    int64_t expert = 0;
    uint32_t slot = 0;
    bool reading = false;   // has a slot; else it waits for one
    bool wished = false;    // a prefetch began it
    bool prefetch = false;  // and nobody has demanded it yet
    std::vector<Waiter> waiters;
  };
  // Calls to make once the mutex is free.
  struct Actions {
    std::vector<std::pair<Waiter, absl::StatusOr<uint32_t>>> deliveries;
    std::vector<Load*> reads;
  };

  CachingExpertStore(std::unique_ptr<ExpertSource> source, std::unique_ptr<Arena> arena,
                     std::unique_ptr<SharedRegion> table_region, ResidencyTableWriter table,
                     Options options);

  absl::Status AddLocalClient();
  absl::Status AllPinned(ExpertId id) const;

  // BatchOwner.
  absl::Status Overdue(int64_t expert) const override;
  void BatchReleased(const MissBoard* board, bool unanswered) override;

  absl::StatusOr<std::shared_ptr<StoreClient>> MakeClient(std::string name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireIfGone(const StoreClient& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeAccesses(StoreClient& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeAllAccesses() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteDemand(StoreClient& client, int64_t expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void ServeOne(Waiter waiter, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void JoinLoad(Load& load, Waiter waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AssignSlots(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartPrefetch(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Late(const PrefetchWish& wish) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartRead(Load& load, uint32_t slot, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveWaiters(const std::function<bool(const Waiter&)>& gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Answer(Waiter waiter, absl::StatusOr<uint32_t> slot, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Deliver(Actions& actions) ABSL_LOCKS_EXCLUDED(mutex_);
  void Read(Load* load) ABSL_LOCKS_EXCLUDED(mutex_);
  void RunOnPool(Actions actions) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnRead(Load* load, absl::Status status);
  void Settle(Load& load, const absl::Status& status, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckHash(const Load& load) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(Load* load, absl::Status status);

  void WatchStarved();
  void ExpireStarved(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t epoch_;
  const bool prefetch_enabled_;
  const bool shareable_;
  const uint64_t budget_bytes_;
  const size_t max_batch_;
  std::unique_ptr<ExpertSource> source_;
  const std::unique_ptr<Arena> arena_;
  const std::unique_ptr<SharedRegion> table_region_;
  ResidencyTableWriter table_;
  std::vector<int32_t> layer_of_;  // entry of catalog().layers(), by expert
  std::shared_ptr<StoreClient> local_client_;
  std::unique_ptr<ArenaView> local_view_;

  mutable absl::Mutex mutex_;
  WorkingSet working_set_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<StoreClient>> clients_ ABSL_GUARDED_BY(mutex_);
  std::vector<PinPage> pages_ ABSL_GUARDED_BY(mutex_);  // those of clients_, in their order
  uint64_t next_client_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t demand_clock_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<int64_t, std::unique_ptr<Load>> loads_ ABSL_GUARDED_BY(mutex_);
  std::deque<Load*> starved_ ABSL_GUARDED_BY(mutex_);  // demanded, no slot yet; oldest first
  PrefetchQueue prefetches_ ABSL_GUARDED_BY(mutex_);
  uint64_t demand_reads_ ABSL_GUARDED_BY(mutex_) = 0;    // under way
  uint64_t prefetch_reads_ ABSL_GUARDED_BY(mutex_) = 0;  // under way: 0 or 1
  StoreStats counters_ ABSL_GUARDED_BY(mutex_);          // but for the gauges
  std::vector<int64_t> accesses_ ABSL_GUARDED_BY(mutex_);  // scratch of TakeAccesses
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool slot_may_be_free_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> anyone_starved_{false};  // lets a batch's end skip the mutex

  std::unique_ptr<ThreadPool> pool_;  // hashes large experts; starts reads for others than callers
  std::thread starved_watch_;
};

}  // namespace odmoe
