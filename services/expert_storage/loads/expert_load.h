// A demand, and an expert on its way in.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/experts/read_control.h"
#include "services/expert_storage/prefetch/prefetch_queue.h"
#include "services/expert_storage/store_client.h"

namespace odmoe {

// Experts a client found not resident.
struct Demand {
  std::shared_ptr<StoreClient> client;
  std::vector<int64_t> experts;  // distinct, in the catalog
  absl::Time deadline = absl::InfiniteFuture();
  // Who asked looks at the deadline itself and withdraws; else the store answers what has not come
  // by then.
  bool keeps_deadline = false;
  const void* owner = nullptr;  // what Withdraw names it by
  // Called once for each position of `experts`, unless the demand is withdrawn first, with the
  // slot, pinned in the client's page and now the callee's to unpin, or why there is none. From any
  // thread, with no lock of the store held. Does not block.
  std::function<void(size_t position, absl::StatusOr<uint32_t> slot)> deliver;
};

// A demand that is not wholly answered. Beside `demand`, which is const, the store's, under its
// lock.
struct PendingDemand {
  using Deadlines = std::multimap<absl::Time, std::shared_ptr<PendingDemand>>;

  explicit PendingDemand(Demand demand) : demand(std::move(demand)) {}

  const Demand demand;
  uint64_t number = 0;    // of the store's demands
  size_t unanswered = 0;  // experts
  bool deferred = false;  // its client holds too much: not admitted yet
  int64_t arrived_us = 0;  // on the store's DemandRecorder's clock
  Deadlines::iterator deadline;  // where it is, if the store keeps it
};

// One expert that a demand waits for.
struct LoadWaiter {
  size_t position;  // in the demand's experts
  std::shared_ptr<PendingDemand> pending;

  const Demand& demand() const { return pending->demand; }
  int64_t expert() const { return demand().experts[position]; }
};

// One expert on its way in, whoever wants it. The store's, under its lock; from the start of the
// read to its end `expert`, `slot` and `control` do not change.
struct ExpertLoad {
  enum class State {
    kQueued,    // demanded, without a slot
    kReading,   // has a slot, and is at the source
    kRetrying,  // the source had no room; queued again at retry_at
  };
  // Why it is read: what began it, until a demand joins.
  enum class Cause { kDemand, kPrefetch, kRestore };

  int64_t expert = 0;
  uint64_t bytes = 0;  // of the expert
  State state = State::kQueued;
  Cause cause = Cause::kDemand;
  bool wished = false;  // a prefetch began it
  PrefetchWish wish;    // if so
  // What its read was begun for, whoever has joined since.
  ReadControl::Urgency begun_as = ReadControl::Urgency::kDemand;
  int32_t tenant = 0;  // on whose account its slot was taken
  uint32_t slot = 0;
  std::shared_ptr<ReadControl> control;  // while reading
  std::vector<LoadWaiter> waiters;

  // ReadsUnderWay's.
  absl::Time started;
  bool stalled = false;
  std::list<ExpertLoad*>::iterator under_way;

  // Of a read that the source had no room for.
  int failures = 0;
  absl::Status last_failure;
  absl::Time retry_at;
};

}  // namespace odmoe
