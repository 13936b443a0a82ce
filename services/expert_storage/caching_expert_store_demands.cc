// What CachingExpertStore is asked for: from a miss to its answers.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {
namespace {

bool WaitsFor(const ExpertLoad& load, int32_t tenant) {
  return std::any_of(
      load.waiters.begin(), load.waiters.end(),
      [tenant](const LoadWaiter& waiter) { return waiter.demand().client->tenant == tenant; });
}

}  // namespace

void CachingExpertStore::Serve(Demand demand) {
  auto pending = std::make_shared<PendingDemand>(std::move(demand));
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    StoreClient& client = *pending->demand.client;
    if (!client.open) return;
    TakeAllAccesses();
    // Before any slot is taken, so that the policy knows all that the layer demands.
    for (int64_t expert : pending->demand.experts) {
      NoteDemand(client, expert, /*missed=*/!working_set_.Find(expert).has_value());
    }
    Begin(std::move(pending), actions);
    CancelLatePrefetches();
    Dispatch(actions);
  }
  for (ExpertLoad* load : actions.reads) Read(load);
  Deliver(actions);
}

void CachingExpertStore::Begin(std::shared_ptr<PendingDemand> pending, Actions& actions) {
  const Demand& demand = pending->demand;
  pending->number = ++demand_count_;
  pending->unanswered = demand.experts.size();
  pending->arrived_us = recorder_.now_us();
  pending->deadline = demand.keeps_deadline || demand.deadline == absl::InfiniteFuture()
                          ? deadlines_.end()
                          : deadlines_.emplace(demand.deadline, pending);
  demands_.insert(pending);
  StoreClient& client = *demand.client;
  if (demand.experts.size() > PinLimit(client)) {
    const absl::Status refused = absl::ResourceExhaustedError(
        absl::StrCat("a demand of ", demand.experts.size(), " experts; client '", client.name,
                     "' may hold ", PinLimit(client), " at once"));
    // Answered as one that was granted, which it counts as until then.
    PinPage page = client.page;
    page.ReserveRoom(demand.experts.size());
    client.granted += demand.experts.size();
    for (size_t i = 0; i < demand.experts.size(); ++i) Answer({i, pending}, refused, actions);
    return;
  }
  if (client.deferred.empty() && Grant(client, *pending)) {
    Admit(std::move(pending), actions);
    return;
  }
  pending->deferred = true;
  client.deferred.push_back(std::move(pending));
  ++deferred_;
}

uint64_t CachingExpertStore::PinCap(const StoreClient& client) const {
  if (client.kind == StoreClient::Kind::kSession) return MaxBatchOf(client.tenant);
  return QuarterOf(working_set_.slots().in_circulation());
}

uint64_t CachingExpertStore::PinLimit(const StoreClient& client) const {
  if (client.kind == StoreClient::Kind::kOwn) return PinPage::kNoLimit;
  if (client.kind != StoreClient::Kind::kSession) return PinCap(client);
  uint64_t slots = working_set_.slots().in_circulation();
  if (tenants_[client.tenant].cache.has_value()) {
    slots = std::min(slots, tenants_.QuotaBytes(client.tenant, budget_bytes()) /
                                arena_->shape().slot_bytes);
  } else if (slots >= static_cast<uint64_t>(catalog().expert_count())) {
    return PinPage::kNoLimit;  // nobody ever waits for a slot
  }
  return std::max(PinCap(client), slots - slots / 4);
}

bool CachingExpertStore::Grant(StoreClient& client, const PendingDemand& pending) {
  const uint64_t experts = pending.demand.experts.size();
  PinPage page = client.page;
  if (client.kind == StoreClient::Kind::kOwn) {
    page.ReserveRoom(experts);
  } else if (!page.ReserveRoom(experts, PinCap(client))) {
    // A client that reads what it is sent and waits for nothing else may be about to let go of a
    // former batch, or its threads each hold a part of theirs: one of them goes on.
    const bool waits = client.granted > 0 ||
                       client.undelivered.load(std::memory_order_relaxed) > 0;
    // As the client was told it: a budget that is just changing must not let it hold more.
    const bool session = client.kind == StoreClient::Kind::kSession;
    const uint64_t limit = session ? client.slot_limit : PinLimit(client);
    if (waits || !page.ReserveRoom(experts, limit)) return false;
  }
  client.granted += experts;
  return true;
}

void CachingExpertStore::TakeBackGrant(StoreClient& client) {
  --client.granted;
  PinPage page = client.page;
  page.GiveBackRoom(1);
}

void CachingExpertStore::Admit(std::shared_ptr<PendingDemand> pending, Actions& actions) {
  const Demand& demand = pending->demand;
  for (size_t i = 0; i < demand.experts.size(); ++i) ServeOne({i, pending}, actions);
}

void CachingExpertStore::AdmitDeferred(Actions& actions) {
  if (deferred_ == 0) return;
  for (const auto& client : clients_.all()) {
    while (!client->deferred.empty() && Grant(*client, *client->deferred.front())) {
      std::shared_ptr<PendingDemand> pending = std::move(client->deferred.front());
      client->deferred.pop_front();
      pending->deferred = false;
      --deferred_;
      Admit(std::move(pending), actions);
    }
  }
}

void CachingExpertStore::ServeOne(LoadWaiter waiter, Actions& actions) {
  const int64_t expert = waiter.expert();
  if (const auto slot = working_set_.Find(expert)) {
    // It came between the client's look and now.
    ++waiter.demand().client->use.hits;
    Answer(std::move(waiter), *slot, actions);
    return;
  }
  ++counters_.misses;
  ++waiter.demand().client->use.misses;
  recorder_.Missed(expert);
  auto [entry, fresh] = loads_.try_emplace(expert);
  if (!fresh && entry->second->stalled &&
      hung_.size() < QuarterOf(working_set_.slots().in_circulation())) {
    // Read anew, beside the read that hangs: whichever comes first serves all.
    hung_.push_back(std::move(entry->second));
    fresh = true;
  }
  if (!fresh) {
    JoinLoad(*entry->second, std::move(waiter));
    return;
  }
  entry->second = std::make_unique<ExpertLoad>();
  ExpertLoad& load = *entry->second;
  load.expert = expert;
  load.bytes = BytesOf(expert);
  if (!hung_.empty() && hung_.back()->expert == expert) load.waiters.swap(hung_.back()->waiters);
  load.waiters.push_back(std::move(waiter));
  Enqueue(load);
}

void CachingExpertStore::JoinLoad(ExpertLoad& load, LoadWaiter waiter) {
  ++counters_.shared_misses;
  ++waiter.demand().client->use.shared_misses;
  const int32_t tenant = waiter.demand().client->tenant;
  if (load.state == ExpertLoad::State::kQueued && !WaitsFor(load, tenant)) {
    // It is read when the first of the tenants that wait for it has its turn.
    scheduler_.Push(tenant, {load.expert, load.bytes, waiter.pending->number});
  }
  if (load.cause != ExpertLoad::Cause::kDemand) under_way_.Raise(load);
  load.waiters.push_back(std::move(waiter));
}

void CachingExpertStore::Enqueue(ExpertLoad& load) {
  load.state = ExpertLoad::State::kQueued;
  for (size_t i = 0; i < load.waiters.size(); ++i) {
    const int32_t tenant = load.waiters[i].demand().client->tenant;
    const bool seen = std::any_of(load.waiters.begin(), load.waiters.begin() + i,
                                  [tenant](const LoadWaiter& other) {
                                    return other.demand().client->tenant == tenant;
                                  });
    if (!seen) scheduler_.Push(tenant, {load.expert, load.bytes, load.waiters[i].pending->number});
  }
}

void CachingExpertStore::Answer(LoadWaiter waiter, absl::StatusOr<uint32_t> slot,
                                Actions& actions) {
  if (slot.ok()) {
    PinPage page = waiter.demand().client->page;
    page.Pin(*slot);
  }
  if (!waiter.pending->deferred) TakeBackGrant(*waiter.demand().client);
  if (--waiter.pending->unanswered == 0) Forget(waiter.pending);
  actions.deliveries.emplace_back(std::move(waiter), std::move(slot));
}

void CachingExpertStore::AnswerAll(ExpertLoad& load, const absl::StatusOr<uint32_t>& slot,
                                   Actions& actions) {
  const absl::Time now = absl::Now();
  std::vector<LoadWaiter> waiters;
  waiters.swap(load.waiters);
  recorder_.SetNow(absl::ToUnixNanos(now));
  for (LoadWaiter& waiter : waiters) {
    const bool late = slot.ok() && waiter.demand().deadline < now;
    CountAnswer(waiter, slot.ok() && !late);
    if (late) {
      Answer(std::move(waiter),
             absl::DeadlineExceededError(absl::StrCat(ExpertName(catalog().IdOf(load.expert)),
                                                      " arrived after its deadline")),
             actions);
    } else {
      Answer(std::move(waiter), slot, actions);
    }
  }
}

void CachingExpertStore::Deliver(Actions& actions) {
  for (auto& [waiter, slot] : actions.deliveries) {
    waiter.demand().deliver(waiter.position, std::move(slot));
  }
}

void CachingExpertStore::Withdraw(const void* owner) {
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    WithdrawIf([owner](const Demand& demand) { return demand.owner == owner; });
    Dispatch(actions);
  }
  RunOnPool(std::move(actions));
}

void CachingExpertStore::WithdrawIf(absl::FunctionRef<bool(const Demand&)> gone) {
  std::vector<std::shared_ptr<PendingDemand>> leaving;
  for (const auto& pending : demands_) {
    if (gone(pending->demand)) leaving.push_back(pending);
  }
  for (const auto& pending : leaving) {
    Leave(pending, [this](const LoadWaiter& waiter, const ExpertLoad* load)
                       ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                         if (load != nullptr) TakeBackGrant(*waiter.demand().client);
                       });
    Forget(pending);
  }
}

void CachingExpertStore::Leave(const std::shared_ptr<PendingDemand>& pending,
                               absl::FunctionRef<void(LoadWaiter, const ExpertLoad*)> gone) {
  const int32_t tenant = pending->demand.client->tenant;
  if (pending->deferred) {
    auto& deferred = pending->demand.client->deferred;
    deferred.erase(std::find(deferred.begin(), deferred.end(), pending));
    --deferred_;
    for (size_t i = 0; i < pending->demand.experts.size(); ++i) gone({i, pending}, nullptr);
    return;
  }
  for (int64_t expert : pending->demand.experts) {
    const auto entry = loads_.find(expert);
    if (entry == loads_.end()) continue;
    ExpertLoad& load = *entry->second;
    const auto found = std::find_if(
        load.waiters.begin(), load.waiters.end(),
        [&pending](const LoadWaiter& waiter) { return waiter.pending == pending; });
    if (found == load.waiters.end()) continue;
    LoadWaiter waiter = std::move(*found);
    load.waiters.erase(found);
    gone(std::move(waiter), &load);
    if (load.state == ExpertLoad::State::kQueued && !WaitsFor(load, tenant)) {
      scheduler_.Drop(tenant, expert);
    }
    DropIfUnwanted(expert);
  }
}

void CachingExpertStore::Forget(const std::shared_ptr<PendingDemand>& pending) {
  if (pending->deadline != deadlines_.end()) deadlines_.erase(pending->deadline);
  pending->deadline = deadlines_.end();
  demands_.erase(pending);
}

void CachingExpertStore::DropIfUnwanted(int64_t expert) {
  const auto entry = loads_.find(expert);
  if (entry == loads_.end() || !entry->second->waiters.empty()) return;
  // What is being read is read to its end: it was wanted a moment ago.
  if (entry->second->state != ExpertLoad::State::kReading) loads_.erase(entry);
}

absl::Status CachingExpertStore::HoldsTooMuch(const StoreClient& client) const {
  return absl::ResourceExhaustedError(
      absl::StrCat("client '", client.name, "' has held so many slots until the ",
                   "deadline that it may not have more: ", PinCap(client), " of ",
                   working_set_.slots().in_circulation(), " at once"));
}

absl::Status CachingExpertStore::OverdueStatus(int64_t expert, const ExpertLoad* load) const {
  const std::string name = ExpertName(catalog().IdOf(expert));
  if (load != nullptr && !load->last_failure.ok()) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name, " could not be read by its deadline: ", load->last_failure.message()));
  }
  const bool starves = load != nullptr && load->state == ExpertLoad::State::kQueued &&
                       scheduler_.any_blocked();
  if (!starves) {
    return absl::DeadlineExceededError(absl::StrCat(name, " has not arrived in time"));
  }
  return absl::ResourceExhaustedError(absl::StrCat("no slot for ", name, ": all ",
                                                   arena_->slot_count(), ", or all of its ",
                                                   "tenant's, were pinned until the deadline"));
}

}  // namespace odmoe
