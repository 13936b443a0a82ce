// What CachingExpertStore must look at though nothing happens: deadlines that pass, reads to be
// tried again, reads that hang, and slots that other processes unpin without a message.
#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {
namespace {

// How soon a slot that another process has unpinned is noticed by who waits for one.
constexpr absl::Duration kStarvedPoll = absl::Milliseconds(1);
// How soon prefetches and restores notice that another store has left their disk alone.
constexpr absl::Duration kHeldBackPoll = absl::Milliseconds(5);
// How often clients' pins are counted while somebody waits for a slot.
constexpr absl::Duration kCountPinsEvery = absl::Milliseconds(100);
// How long the watch sleeps while the store is in use: so that deadlines further away, which nearly
// all are, need not wake it.
constexpr absl::Duration kBusyLook = absl::Seconds(1);

}  // namespace

void CachingExpertStore::Watch() {
  while (true) {
    Actions actions;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      const absl::Time now = absl::Now();
      const absl::Time due = NextLook();
      if (due > now) {
        watch_until_ = std::min(due, active_ ? now + kBusyLook : absl::InfiniteFuture());
        active_ = false;
        look_now_.WaitWithDeadline(&mutex_, watch_until_);
        watch_until_ = absl::InfinitePast();
        continue;
      }
      last_look_ = now;
      LookAround(now, actions);
    }
    RunOnPool(std::move(actions));
    if (anyone_starved_.load(std::memory_order_relaxed) &&
        absl::Now() - last_count_ >= kCountPinsEvery) {
      EndOverholders();
      last_count_ = absl::Now();
    }
  }
}

absl::Time CachingExpertStore::NextLook() const {
  absl::Time due = under_way_.NextStall();
  if (!deadlines_.empty()) due = std::min(due, deadlines_.begin()->first);
  if (!retries_.empty()) due = std::min(due, retries_.begin()->first);
  if (accesses_due_ || wishes_left_) return absl::InfinitePast();
  if (held_back_) due = std::min(due, last_look_ + kHeldBackPoll);
  if (scheduler_.any_blocked() || deferred_ > 0) {
    due = std::min(due, slot_may_be_free_ ? absl::InfinitePast() : last_look_ + kStarvedPoll);
  }
  return due;
}

void CachingExpertStore::WakeWatchIfEarlier() {
  active_ = true;
  if (NextLook() < watch_until_) look_now_.Signal();
}

void CachingExpertStore::LookAround(absl::Time now, Actions& actions) {
  slot_may_be_free_ = false;
  if (accesses_due_) {
    TakeDueAccesses();
  } else {
    TakeAllAccesses();
  }
  ExpireDemands(now, actions);
  RetryReads(now);
  under_way_.MarkStalled(now);
  AdmitDeferred(actions);
  Dispatch(actions);
}

void CachingExpertStore::ExpireDemands(absl::Time now, Actions& actions) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const std::shared_ptr<PendingDemand> pending = deadlines_.begin()->second;
    Leave(pending, [&](LoadWaiter waiter, const ExpertLoad* load)
                       ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const absl::Status status = waiter.pending->deferred
                                      ? HoldsTooMuch(*waiter.demand().client)
                                      : OverdueStatus(waiter.expert(), load);
      CountAnswer(waiter, false);
      Answer(std::move(waiter), status, actions);
    });
    Forget(pending);
  }
}

void CachingExpertStore::RetryReads(absl::Time now) {
  while (!retries_.empty() && retries_.begin()->first <= now) {
    const auto load = loads_.find(retries_.begin()->second);
    retries_.erase(retries_.begin());
    if (load == loads_.end() || load->second->state != ExpertLoad::State::kRetrying) continue;
    if (load->second->retry_at <= now) Enqueue(*load->second);
  }
}

}  // namespace odmoe
