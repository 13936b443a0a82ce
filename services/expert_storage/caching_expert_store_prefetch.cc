// What CachingExpertStore reads before it is demanded.
#include <utility>

#include "absl/time/clock.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

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
    WakeWatchIfEarlier();
  }
  RunOnPool(std::move(actions));
}

void CachingExpertStore::StartPrefetch(Actions& actions) {
  // One at a time, and only while no demand is waiting for the disk: so a demand that comes now
  // waits for one request of the source's at most.
  if (stopping_ || !scheduler_.empty() || !under_way_.NoDemand() || !under_way_.NoPrefetch()) {
    return;
  }
  while (const auto wish = prefetches_.Pop()) {
    if (TryPrefetch(*wish, actions)) return;
    ++counters_.prefetch_dropped;
  }
}

bool CachingExpertStore::TryPrefetch(const PrefetchWish& wish, Actions& actions) {
  if (working_set_.Find(wish.expert) || loads_.contains(wish.expert) || Late(wish)) return false;
  const int32_t tenant = clients_.Find(wish.client)->tenant;
  const auto slot =
      working_set_.TakeSlot(WorkingSet::Purpose::kPrefetch, tenant, clients_.pages());
  if (!slot) return false;
  auto& load = loads_[wish.expert] = std::make_unique<ExpertLoad>();
  load->expert = wish.expert;
  load->bytes = BytesOf(wish.expert);
  load->tenant = tenant;
  load->cause = ExpertLoad::Cause::kPrefetch;
  load->wished = true;
  load->wish = wish;
  StartRead(*load, *slot, ReadControl::Urgency::kPrefetch, actions);
  return true;
}

void CachingExpertStore::CancelLatePrefetches() {
  if (under_way_.NoPrefetch()) return;
  for (ExpertLoad* load : under_way_.active()) {
    if (load->cause == ExpertLoad::Cause::kPrefetch && Late(load->wish)) load->control->Cancel();
  }
}

bool CachingExpertStore::Late(const PrefetchWish& wish) const {
  const StoreClient* client = clients_.Find(wish.client);
  return client == nullptr || client->layer_clocks[layer_of_[wish.expert]] > wish.clock;
}

}  // namespace odmoe
