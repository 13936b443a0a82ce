// The miss path of CachingExpertStore: from a demand or a prefetch to the expert in its slot.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/expert_storage/caching_expert_store.h"
#include "xxhash.h"

namespace odmoe {
namespace {

// Below this the hash takes less time than handing it to another thread.
constexpr uint64_t kHashInPlaceBytes = 128 << 10;
// How soon a slot that another process has unpinned is noticed by who waits for one.
constexpr absl::Duration kStarvedPoll = absl::Milliseconds(1);

}  // namespace

void CachingExpertStore::Serve(Demand demand) {
  const auto shared = std::make_shared<const Demand>(std::move(demand));
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    if (!shared->client->open) return;
    TakeAllAccesses();
    // Before any slot is taken, so that the policy knows all that the layer demands.
    for (int64_t expert : shared->experts) NoteDemand(*shared->client, expert);
    for (size_t i = 0; i < shared->experts.size(); ++i) ServeOne({i, shared}, actions);
    anyone_starved_.store(!starved_.empty(), std::memory_order_relaxed);
  }
  for (Load* load : actions.reads) Read(load);
  Deliver(actions);
}

void CachingExpertStore::ServeOne(Waiter waiter, Actions& actions) {
  const int64_t expert = waiter.demand->experts[waiter.position];
  if (const auto slot = working_set_.Find(expert)) {
    // It came between the client's look and now.
    ++counters_.hits;
    Answer(std::move(waiter), *slot, actions);
    return;
  }
  ++counters_.misses;
  auto [entry, fresh] = loads_.try_emplace(expert);
  if (!fresh) {
    JoinLoad(*entry->second, std::move(waiter));
    return;
  }
  entry->second = std::make_unique<Load>();
  Load& load = *entry->second;
  load.expert = expert;
  load.waiters.push_back(std::move(waiter));
  std::optional<uint32_t> slot;
  // Whoever waits for a slot already goes first.
  if (starved_.empty()) {
    slot = working_set_.TakeSlot(WorkingSet::Purpose::kDemand, kDefaultTenant, pages_);
  }
  if (slot) {
    StartRead(load, *slot, actions);
  } else {
    starved_.push_back(&load);
  }
}

void CachingExpertStore::JoinLoad(Load& load, Waiter waiter) {
  ++counters_.shared_misses;
  if (load.prefetch) {
    load.prefetch = false;
    --prefetch_reads_;
    ++demand_reads_;
  }
  load.waiters.push_back(std::move(waiter));
}

void CachingExpertStore::StartRead(Load& load, uint32_t slot, Actions& actions) {
  load.slot = slot;
  load.reading = true;
  ++(load.prefetch ? prefetch_reads_ : demand_reads_);
  actions.reads.push_back(&load);
}

void CachingExpertStore::Answer(Waiter waiter, absl::StatusOr<uint32_t> slot, Actions& actions) {
  if (slot.ok()) {
    PinPage page = waiter.demand->client->page;
    page.Pin(*slot);
  }
  actions.deliveries.emplace_back(std::move(waiter), std::move(slot));
}

void CachingExpertStore::Deliver(Actions& actions) {
  for (auto& [waiter, slot] : actions.deliveries) {
    waiter.demand->deliver(waiter.position, std::move(slot));
  }
}

void CachingExpertStore::Read(Load* load) {
  source_->Read(catalog().IdOf(load->expert), arena_->Slot(load->slot),
                [this, load](absl::Status status) { OnRead(load, std::move(status)); });
}

void CachingExpertStore::RunOnPool(Actions actions) {
  // Not from here: a source that completes within Read would come back here, ever deeper.
  for (Load* load : actions.reads) pool_->Schedule([this, load] { Read(load); });
  Deliver(actions);
}

void CachingExpertStore::OnRead(Load* load, absl::Status status) {
  const uint64_t bytes = catalog().layers()[layer_of_[load->expert]].layout.bytes;
  if (!status.ok() || bytes <= kHashInPlaceBytes) {
    if (status.ok()) status = CheckHash(*load);
    Finish(load, std::move(status));
    return;
  }
  pool_->Schedule([this, load] { Finish(load, CheckHash(*load)); });
}

absl::Status CachingExpertStore::CheckHash(const Load& load) {
  const ExpertId id = catalog().IdOf(load.expert);
  const LayerExperts& layer = catalog().layers()[layer_of_[load.expert]];
  if (layer.xxh3.empty() || source_->checks_hashes()) return absl::OkStatus();
  const uint64_t expected = layer.xxh3[id.expert];
  const uint64_t got = XXH3_64bits(arena_->Slot(load.slot).data(), layer.layout.bytes);
  if (got == expected) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  ++counters_.checksum_failures;
  return absl::DataLossError(absl::StrCat(
      ExpertName(id), " is corrupt: XXH3 of its ", layer.layout.bytes, " bytes is ",
      absl::Hex(got, absl::kZeroPad16), ", the registry says ",
      absl::Hex(expected, absl::kZeroPad16)));
}

void CachingExpertStore::Finish(Load* load, absl::Status status) {
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    Settle(*load, status, actions);
    loads_.erase(load->expert);
    TakeAllAccesses();
    AssignSlots(actions);
    StartPrefetch(actions);
  }
  RunOnPool(std::move(actions));
}

void CachingExpertStore::Settle(Load& load, const absl::Status& status, Actions& actions) {
  --(load.prefetch ? prefetch_reads_ : demand_reads_);
  if (!status.ok()) {
    ++counters_.read_failures;
    working_set_.ReturnSlot(load.slot, kDefaultTenant);
    if (load.wished) ++counters_.prefetch_dropped;
    for (Waiter& waiter : load.waiters) Answer(std::move(waiter), status, actions);
    return;
  }
  ++counters_.reads;
  counters_.bytes_read += catalog().layers()[layer_of_[load.expert]].layout.bytes;
  if (load.wished) {
    ++counters_.prefetch_reads;
    if (!load.prefetch) ++counters_.prefetch_useful;
  }
  working_set_.Publish(load.expert, load.slot, kDefaultTenant, load.prefetch);
  const absl::Time now = absl::Now();
  for (Waiter& waiter : load.waiters) {
    if (waiter.demand->deadline < now) {
      Answer(std::move(waiter),
             absl::DeadlineExceededError(absl::StrCat(
                 ExpertName(catalog().IdOf(load.expert)), " arrived after its deadline")),
             actions);
    } else {
      Answer(std::move(waiter), load.slot, actions);
    }
  }
}

void CachingExpertStore::AssignSlots(Actions& actions) {
  while (!starved_.empty() && !stopping_) {
    Load* load = starved_.front();
    if (load->waiters.empty()) {
      loads_.erase(load->expert);
    } else {
      const auto slot =
          working_set_.TakeSlot(WorkingSet::Purpose::kDemand, kDefaultTenant, pages_);
      if (!slot) break;
      StartRead(*load, *slot, actions);
    }
    starved_.pop_front();
  }
  anyone_starved_.store(!starved_.empty(), std::memory_order_relaxed);
}

void CachingExpertStore::PrefetchFor(const std::shared_ptr<StoreClient>& client,
                                     absl::Span<const int64_t> experts) {
  if (!prefetch_enabled_ || experts.empty()) return;
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    if (!client->open) return;
    // What the client demanded until now is not what makes these late.
    TakeAccesses(*client);
    for (int64_t expert : experts) {
      ++counters_.prefetches;
      const bool useless = working_set_.Find(expert).has_value() || loads_.contains(expert);
      if (useless || !prefetches_.Push({expert, client->id, demand_clock_})) {
        ++counters_.prefetch_dropped;
      }
    }
    StartPrefetch(actions);
  }
  RunOnPool(std::move(actions));
}

void CachingExpertStore::StartPrefetch(Actions& actions) {
  // One at a time, and only while no demand is waiting for the disk: so a demand that comes now
  // waits for one expert's transfer at most.
  if (stopping_ || demand_reads_ > 0 || prefetch_reads_ > 0 || !starved_.empty()) return;
  while (const auto wish = prefetches_.Pop()) {
    if (!working_set_.Find(wish->expert) && !loads_.contains(wish->expert) && !Late(*wish)) {
      if (const auto slot = working_set_.TakeSlot(WorkingSet::Purpose::kPrefetch, kDefaultTenant,
                                                  pages_)) {
        auto& load = loads_[wish->expert] = std::make_unique<Load>();
        load->expert = wish->expert;
        load->wished = load->prefetch = true;
        StartRead(*load, *slot, actions);
        return;
      }
    }
    ++counters_.prefetch_dropped;
  }
}

bool CachingExpertStore::Late(const PrefetchWish& wish) const {
  for (const auto& client : clients_) {
    if (client->id == wish.client) return client->layer_clocks[layer_of_[wish.expert]] > wish.clock;
  }
  return true;
}

void CachingExpertStore::Withdraw(const void* owner) {
  absl::MutexLock lock(&mutex_);
  RemoveWaiters([owner](const Waiter& waiter) { return waiter.demand->owner == owner; });
}

void CachingExpertStore::RemoveWaiters(const std::function<bool(const Waiter&)>& gone) {
  for (auto& [expert, load] : loads_) std::erase_if(load->waiters, gone);
}

void CachingExpertStore::WatchStarved() {
  const auto needed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !starved_.empty();
  };
  const auto worth_a_look = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || slot_may_be_free_;
  };
  while (true) {
    Actions actions;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&needed));
      // Another process unpins without a message; so a slot's becoming free must be looked for.
      mutex_.AwaitWithTimeout(absl::Condition(&worth_a_look), kStarvedPoll);
      if (stopping_) return;
      slot_may_be_free_ = false;
      TakeAllAccesses();
      ExpireStarved(actions);
      AssignSlots(actions);
    }
    RunOnPool(std::move(actions));
  }
}

void CachingExpertStore::ExpireStarved(Actions& actions) {
  const absl::Time now = absl::Now();
  for (Load* load : starved_) {
    std::erase_if(load->waiters, [&](Waiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (waiter.demand->deadline > now) return false;
      Answer(waiter, AllPinned(catalog().IdOf(load->expert)), actions);
      return true;
    });
  }
}

}  // namespace odmoe
