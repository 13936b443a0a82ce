// The working set of one model under a hard budget, for callers in this process and, through shared
// memory, in others.
//
// Locks: hits take none. A miss takes the store's mutex for a few list operations; no I/O, no hash
// and no callback runs under it. Reads complete on the source's threads. A source that does not
// check hashes itself has it done by the store, large experts on its own pool.
//
// What is read next: demands are queued by tenant (loads/read_scheduler.h) and get their slots when
// their turn comes, which keeps about as much under way as the source can use. Prefetches are read
// when no demand is queued or under way. Single flight: an expert is queued and read once, however
// many clients of however many tenants wait for it; they share its charge.
//
// Deadlines: an expert that has not come by its demand's deadline fails with DEADLINE_EXCEEDED,
// even where its read hangs: the read keeps its slot until the source is done with it, and after a
// while no longer counts as under way (loads/reads_under_way.h). Where the source had no memory the
// read is tried again until then.
//
// Hold and wait: a batch keeps the pins it has while it waits for more. max_batch() is half of the
// slots, so two callers that hold one batch each can never wait for one another. More callers can,
// and two where the budget is below twice a layer's demand, which max_batch() always allows: then
// a tenant's experts wait for slots in the order they were asked for, and a batch that gets none by
// its deadline fails with RESOURCE_EXHAUSTED, is destroyed, and frees its slots.
//
// A client of another process is served only while it holds less than max_batch() slots, whatever
// has been sent to it and not read counting too, and three quarters of all slots where it waits for
// nothing else: so one that has stalled leaves the others room. What it pins without a call, in its
// own page, counts: its library asks for hits too once it holds three quarters. One that does not,
// and pins more while others wait for slots, has its session ended and its pins dropped.
//
// Time under the lock does not grow with the slots, the experts or what clients have left unread:
// accesses are taken some hundred at a time, and what takes longer is done on a copy.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_source.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/pinned_batch.h"
#include "services/expert_storage/arena/arena.h"
#include "services/expert_storage/arena/resize_plan.h"
#include "services/expert_storage/caching_store_options.h"
#include "services/expert_storage/client_registry.h"
#include "services/expert_storage/loads/expert_load.h"
#include "services/expert_storage/loads/read_scheduler.h"
#include "services/expert_storage/loads/reads_under_way.h"
#include "services/expert_storage/loads/shared_disks.h"
#include "services/expert_storage/prefetch/prefetch_judge.h"
#include "services/expert_storage/prefetch/prefetch_queue.h"
#include "services/expert_storage/restart/working_set_file.h"
#include "services/expert_storage/telemetry/demand_recorder.h"
#include "services/expert_storage/tenants/tenant_table.h"
#include "services/expert_storage/working_set.h"

namespace odmoe {

class CachingExpertStore final : public ExpertStore, private BatchOwner {
 public:
  using Options = CachingStoreOptions;

  // INVALID_ARGUMENT: a model without experts. RESOURCE_EXHAUSTED: a budget below one slot, a
  // tenant's quota below one layer's demand, or no memory. FAILED_PRECONDITION: huge pages always,
  // and the kernel grants them not.
  static absl::StatusOr<std::unique_ptr<CachingExpertStore>> Create(
      std::unique_ptr<ExpertSource> source, Options options);
  // Waits for the reads under way. Every batch is gone before, every session ended.
  ~CachingExpertStore() override;

  const ExpertCatalog& catalog() const override { return source_->catalog(); }
  absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time deadline) override;
  bool Resident(ExpertId id) const override { return local_view_->Resident(id); }
  void Prefetch(absl::Span<const ExpertId> ids) override;
  size_t max_batch() const override { return table_.max_batch(); }
  absl::StatusOr<StoreStats> Stats() override;

  // For the service; all thread-safe.
  // What the counters do not tell; with `with_experts` each expert's heat too.
  StoreTelemetry Telemetry(bool with_experts);
  // Bytes of an expert have gone to another host.
  void CountSent(uint64_t bytes) { remote_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  int64_t epoch() const { return epoch_; }
  // How experts are read, and what its disks have had to do.
  SourceStats source_stats() const { return source_->Stats(); }
  uint64_t budget_bytes() const { return budget_bytes_.load(); }
  uint64_t demand() const { return demand_; }  // experts of a layer that one token asks for
  // What the budget must be at least: one layer's demand.
  uint64_t minimum_budget_bytes() const;

  // Another budget. To shrink, segments leave circulation, whose experts are evicted once nobody
  // pins them, and every client's process gives up their memory; demands go on meanwhile, and wait
  // for the slots that are left. One resize runs at a time. By `deadline`, or
  // RESOURCE_EXHAUSTED, the figures in the message, and the budget stays: below
  // minimum_budget_bytes(); more than the machine has; pins or reads hold what must go; or a
  // client's process does not answer, whose session is ended then.
  absl::Status Resize(uint64_t budget_bytes, absl::Time deadline);
  // A client's process has done what a message told it.
  void Acknowledge(const std::shared_ptr<StoreClient>& client, uint64_t sequence);
  const Arena& arena() const { return *arena_; }
  const SharedRegion& table_region() const { return *table_region_; }
  // The most experts a client of the tenant can hold at once.
  size_t MaxBatchOf(int32_t tenant) const;
  // Puts experts of a former working set into free slots in the background, the first first, while
  // no demand is queued or under way; how many. FAILED_PRECONDITION: another model's.
  absl::StatusOr<size_t> PutBack(const SavedWorkingSet& saved) ABSL_LOCKS_EXCLUDED(mutex_);
  // What PutBack takes.
  SavedWorkingSet SaveWorkingSet() ABSL_LOCKS_EXCLUDED(mutex_);
  PrefetchJudge::Counters prefetch_counters() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Acquire for calls that compute experts for other hosts: together they hold a quarter of the
  // slots. A batch of theirs has max_execute_batch() experts at most, a share of that quarter, so
  // that kExecuteCallers of them never wait for one another.
  absl::StatusOr<std::unique_ptr<ExpertBatch>> AcquireToExecute(absl::Span<const ExpertId> ids,
                                                                absl::Time deadline);
  static constexpr size_t kExecuteCallers = 4;
  size_t max_execute_batch() const;
  // Whoever streams experts to other hosts: together they hold a quarter of the slots at most.
  const std::shared_ptr<StoreClient>& stream_client() const { return stream_client_; }
  const TenantTable& tenants() const { return tenants_; }
  // A session begins, of the tenant that TenantTable::Find makes of the name. RESOURCE_EXHAUSTED:
  // too many clients. PERMISSION_DENIED: no such tenant.
  absl::StatusOr<std::shared_ptr<StoreClient>> AttachClient(std::string name,
                                                            absl::string_view tenant = "");
  // The client's process is about to map its page, and is told by `channel` of the segments there
  // are, now and later. False: its session has ended, or it is gone. Null channel: a client in this
  // process, for which segments come and go by themselves.
  bool BeginMapping(const std::shared_ptr<StoreClient>& client,
                    std::shared_ptr<SegmentChannel> channel = nullptr);
  // The process has no mapping any more.
  void EndMapping(const std::shared_ptr<StoreClient>& client);
  // The session has ended: its demands and prefetches are dropped at once. Its pins are dropped
  // when its process has no mapping any more: until then it may be reading what it has pinned.
  void EndSession(const std::shared_ptr<StoreClient>& client);
  // Serves a client's misses.
  void Serve(Demand demand);
  // Forgets an owner's demands; what is under way is read to its end. Deliveries that have begun
  // may still come.
  void Withdraw(const void* owner) ABSL_LOCKS_EXCLUDED(mutex_);
  // Prefetch for a client. `experts` in the catalog.
  void PrefetchFor(const std::shared_ptr<StoreClient>& client, absl::Span<const int64_t> experts);

 private:
  // Calls to make once the mutex is free.
  struct Actions {
    std::vector<std::pair<LoadWaiter, absl::StatusOr<uint32_t>>> deliveries;
    std::vector<ExpertLoad*> reads;
  };

  CachingExpertStore(std::unique_ptr<ExpertSource> source, std::unique_ptr<Arena> arena,
                     std::unique_ptr<SharedRegion> table_region, ResidencyTableWriter table,
                     Options options);

  absl::Status AddOwnClients(const std::vector<uint64_t>& quotas);
  absl::StatusOr<std::unique_ptr<ExpertBatch>> AcquireBy(const std::shared_ptr<StoreClient>& client,
                                                         const ArenaView& view,
                                                         absl::Span<const ExpertId> ids,
                                                         size_t max_batch, absl::Time deadline);
  // The tenants' quotas of so large a budget, in slots. RESOURCE_EXHAUSTED: one is below a layer's
  // demand.
  absl::StatusOr<std::vector<uint64_t>> QuotaSlots(uint64_t budget_bytes) const;
  void SetQuotas(const std::vector<uint64_t>& slots) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t BytesOf(int64_t expert) const {
    return catalog().layers()[layer_of_[expert]].layout.bytes;
  }

  // Memory (caching_expert_store_resize.cc).
  absl::Span<std::byte> SegmentBytes(const Arena::Segment& segment) const;
  // A segment whose slots may be filled from now on.
  void Circulate(const Arena::Segment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static constexpr uint64_t QuarterOf(uint64_t slots) { return std::max<uint64_t>(1, slots / 4); }
  void SetMaxBatch(uint64_t slots);
  // What depends on the number of slots in circulation, which has changed.
  void FollowSlots() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<SegmentUse> SegmentUses() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ResizeTo(uint64_t budget_bytes, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resize_mutex_);
  absl::Status RetireSegments(const std::vector<Arena::Segment>& segments, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resize_mutex_);
  absl::Status AwaitDrained(const std::vector<Arena::Segment>& segments, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resize_mutex_);
  absl::Status AddSegments(const std::vector<Arena::Segment>& segments)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resize_mutex_);
  // Tells every client that has something mapped, and ends the sessions of those that do not answer
  // in time: their names.
  std::vector<std::string> TellClients(SegmentMessage::Kind kind,
                                       const std::vector<Arena::Segment>& segments)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(resize_mutex_);

  // BatchOwner.
  absl::Status Overdue(int64_t expert) const override;
  void BatchReleased(const MissBoard* board, bool unanswered) override;

  // Clients (caching_expert_store_clients.cc).
  absl::StatusOr<std::shared_ptr<StoreClient>> MakeClient(std::string name, int32_t tenant)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireIfGone(StoreClient& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of those that are due; how many.
  uint64_t TakeAccesses(StoreClient& client, uint64_t most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of all clients, what they have accessed until now; the watch takes what is too much at once.
  void TakeAllAccesses() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeDueAccesses() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tells a client how many slots it may hold.
  void SetSlotLimit(StoreClient& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the sessions of clients that pin more than they were ever allowed to.
  void EndOverholders() ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteDemand(StoreClient& client, int64_t expert, bool missed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Demands (caching_expert_store_demands.cc): from a miss to its answers.
  void Begin(std::shared_ptr<PendingDemand> pending, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Slots that a session or the streams may hold while more of their demands are under way.
  uint64_t PinCap(const StoreClient& client) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // And where it waits for nothing else.
  uint64_t PinLimit(const StoreClient& client) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether the client may have a demand served now, by what it holds already. True: there is room
  // reserved in its page for all of it, and given back expert by expert.
  bool Grant(StoreClient& client, const PendingDemand& pending)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeBackGrant(StoreClient& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Admit(std::shared_ptr<PendingDemand> pending, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AdmitDeferred(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ServeOne(LoadWaiter waiter, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void JoinLoad(ExpertLoad& load, LoadWaiter waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Queues a load for each tenant that waits for it.
  void Enqueue(ExpertLoad& load) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Answer(LoadWaiter waiter, absl::StatusOr<uint32_t> slot, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerAll(ExpertLoad& load, const absl::StatusOr<uint32_t>& slot, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a demand out of the loads it waits for; calls `gone` with each waiter, already taken out
  // of its load. Null: the demand was deferred, and has none.
  void Leave(const std::shared_ptr<PendingDemand>& pending,
             absl::FunctionRef<void(LoadWaiter, const ExpertLoad*)> gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const std::shared_ptr<PendingDemand>& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WithdrawIf(absl::FunctionRef<bool(const Demand&)> gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Why an expert of `load` has not come by its deadline.
  absl::Status OverdueStatus(int64_t expert, const ExpertLoad* load) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Why a deferred demand has not been served by its deadline.
  absl::Status HoldsTooMuch(const StoreClient& client) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Deliver(Actions& actions) ABSL_LOCKS_EXCLUDED(mutex_);

  // Loads (caching_expert_store_loads.cc): from the queue to the expert in its slot.
  // How much of the disk is this store's now.
  void TakeDiskShare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing may be read that nobody waits for: a demand is queued or being read, here or in another
  // store on the same disk.
  bool DiskIsWanted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Dispatch(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool StartNextDemand(const ReadScheduler::Pick& pick, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartRead(ExpertLoad& load, uint32_t slot, ReadControl::Urgency urgency, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Read(ExpertLoad* load) ABSL_LOCKS_EXCLUDED(mutex_);
  void RunOnPool(Actions actions) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnRead(ExpertLoad* load, absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckHash(const ExpertLoad& load) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(ExpertLoad* load, absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  void SettleFailed(std::unique_ptr<ExpertLoad> load, absl::Status status, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SettleRead(ExpertLoad& load, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The load, out of loads_ or hung_.
  std::unique_ptr<ExpertLoad> Detach(ExpertLoad& load) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Erases a load that nobody waits for and that is not being read.
  void DropIfUnwanted(int64_t expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Telemetry (caching_expert_store_telemetry.cc).
  void FillStats(StoreStats& stats) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillQueues(StoreTelemetry& telemetry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillUsers(StoreTelemetry& telemetry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A miss has been answered, with its expert or an error.
  void CountAnswer(const LoadWaiter& waiter, bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Prefetch (caching_expert_store_prefetch.cc).
  void StartPrefetch(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TryPrefetch(const PrefetchWish& wish, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelLatePrefetches() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Late(const PrefetchWish& wish) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tells the judge what the last TakeSlot evicted.
  void NoteEvictions(bool for_prefetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartRestores(Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What must be looked at from time to time (caching_expert_store_watch.cc): deadlines, reads to
  // be tried again, reads that hang, slots that other processes free.
  void Watch();
  absl::Time NextLook() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeWatchIfEarlier() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookAround(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireDemands(absl::Time now, Actions& actions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetryReads(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t epoch_;
  const PolicyKind policy_;
  const bool prefetch_enabled_;
  const bool shareable_;
  const uint64_t demand_;
  const absl::Duration client_patience_;
  std::atomic<uint64_t> budget_bytes_;
  std::unique_ptr<ExpertSource> source_;
  const std::unique_ptr<Arena> arena_;
  const std::unique_ptr<SharedRegion> table_region_;
  ResidencyTableWriter table_;
  const TenantTable tenants_;
  std::vector<int32_t> layer_of_;  // entry of catalog().layers(), by expert
  const std::unique_ptr<SharedDisks::Place> disk_;  // null: nobody else is known to read from it
  std::shared_ptr<StoreClient> local_client_;
  std::shared_ptr<StoreClient> stream_client_;
  std::shared_ptr<StoreClient> execute_client_;
  std::unique_ptr<ArenaView> local_view_;
  std::unique_ptr<ArenaView> execute_view_;

  absl::Mutex resize_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(resize_mutex_) = 1;

  mutable absl::Mutex mutex_;
  std::vector<Arena::Segment> segments_ ABSL_GUARDED_BY(mutex_);  // that clients are to map
  Arena::Grants grants_ ABSL_GUARDED_BY(mutex_);  // when the arena last changed
  DemandRecorder recorder_ ABSL_GUARDED_BY(mutex_);
  WorkingSet working_set_ ABSL_GUARDED_BY(mutex_);
  ClientRegistry clients_ ABSL_GUARDED_BY(mutex_);
  uint64_t demand_clock_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> accesses_ ABSL_GUARDED_BY(mutex_);  // scratch of TakeAccesses
  bool accesses_due_ ABSL_GUARDED_BY(mutex_) = false;      // some are left to the watch
  size_t first_taken_ ABSL_GUARDED_BY(mutex_) = 0;         // client whose accesses come first

  absl::flat_hash_set<std::shared_ptr<PendingDemand>> demands_ ABSL_GUARDED_BY(mutex_);
  PendingDemand::Deadlines deadlines_ ABSL_GUARDED_BY(mutex_);
  uint64_t demand_count_ ABSL_GUARDED_BY(mutex_) = 0;  // ever
  size_t deferred_ ABSL_GUARDED_BY(mutex_) = 0;        // demands, over all clients

  absl::flat_hash_map<int64_t, std::unique_ptr<ExpertLoad>> loads_ ABSL_GUARDED_BY(mutex_);
  // Reads that hang, and whose experts have been asked for anew: at most a quarter of the slots.
  std::vector<std::unique_ptr<ExpertLoad>> hung_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, int64_t> retries_ ABSL_GUARDED_BY(mutex_);  // experts, by when
  ReadScheduler scheduler_ ABSL_GUARDED_BY(mutex_);
  ReadsUnderWay under_way_ ABSL_GUARDED_BY(mutex_);
  PrefetchJudge judge_ ABSL_GUARDED_BY(mutex_);
  std::deque<SavedWorkingSet::Expert> restores_ ABSL_GUARDED_BY(mutex_);  // tenants of this store
  PrefetchQueue prefetches_ ABSL_GUARDED_BY(mutex_);
  bool wishes_left_ ABSL_GUARDED_BY(mutex_) = false;  // to be looked at soon
  bool held_back_ ABSL_GUARDED_BY(mutex_) = false;    // by another store's demands
  StoreStats counters_ ABSL_GUARDED_BY(mutex_);  // but for the gauges

  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool slot_may_be_free_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<uint64_t> remote_bytes_{0};
  std::atomic<bool> anyone_starved_{false};  // lets a batch's end skip the mutex
  absl::CondVar look_now_;                   // wakes the watch
  absl::Time last_look_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time last_count_ = absl::InfinitePast();  // of pins, by the watch alone
  absl::Time watch_until_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // its next look
  bool active_ ABSL_GUARDED_BY(mutex_) = false;  // since the watch's last look

  std::unique_ptr<ThreadPool> pool_;  // hashes large experts; starts reads for others than callers
  std::thread watch_;
};

}  // namespace odmoe
