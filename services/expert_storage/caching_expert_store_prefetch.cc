// What CachingExpertStore reads before it is demanded: wishes, and what was resident before a
// restart.
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {
namespace {

// So that the source has the next one when it is done with one.
constexpr size_t kRestoresAtOnce = 2;
// Wishes taken or looked at without letting go of the lock.
constexpr size_t kWishesAtOnce = 64;

}  // namespace

void CachingExpertStore::PrefetchFor(const std::shared_ptr<StoreClient>& client,
                                     absl::Span<const int64_t> experts) {
  if (!prefetch_enabled_ || experts.empty()) return;
  for (; experts.size() > kWishesAtOnce; experts.remove_prefix(kWishesAtOnce)) {
    PrefetchFor(client, experts.first(kWishesAtOnce));
  }
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    if (!client->open) return;
    // What the client demanded until now is not what makes these late.
    TakeAllAccesses();
    for (int64_t expert : experts) {
      ++counters_.prefetches;
      if (!judge_.on()) judge_.Refused();
      const bool useless =
          !judge_.on() || working_set_.Find(expert).has_value() || loads_.contains(expert);
      // What lies at or before the layer demanded last is wished for the next pass.
      const uint64_t pass = client->passes + (layer_of_[expert] <= client->last_layer ? 1 : 0);
      if (useless || !prefetches_.Push({expert, client->id, pass, demand_clock_})) {
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
  wishes_left_ = held_back_ = false;
  if (stopping_ || DiskIsWanted() || !under_way_.NoPrefetch()) return;
  for (size_t tries = 0; tries < kWishesAtOnce; ++tries) {
    const auto wish = prefetches_.Pop();
    if (!wish || TryPrefetch(*wish, actions)) return;
    ++counters_.prefetch_dropped;
  }
  wishes_left_ = !prefetches_.empty();
}

bool CachingExpertStore::TryPrefetch(const PrefetchWish& wish, Actions& actions) {
  if (working_set_.Find(wish.expert) || loads_.contains(wish.expert) || Late(wish)) return false;
  const int32_t tenant = clients_.Find(wish.client)->tenant;
  const auto slot =
      working_set_.TakeSlot(WorkingSet::Purpose::kPrefetch, tenant, clients_.pages(), wish.expert);
  NoteEvictions(/*for_prefetch=*/true);
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
  return client == nullptr || client->passes > wish.pass ||
         client->layer_clocks[layer_of_[wish.expert]] > wish.clock;
}

void CachingExpertStore::NoteEvictions(bool for_prefetch) {
  for (const WorkingSet::Eviction& eviction : working_set_.evicted()) {
    if (eviction.unused) judge_.Wasted(BytesOf(eviction.expert));
    if (for_prefetch) judge_.Displaced(eviction.expert);
  }
}

absl::StatusOr<size_t> CachingExpertStore::PutBack(const SavedWorkingSet& saved) {
  if (saved.model_digest != catalog().model_digest()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a working set of the model ", saved.model_digest, ", not of ", catalog().model_digest()));
  }
  std::vector<int32_t> tenant_of;
  for (const std::string& name : saved.tenants) {
    tenant_of.push_back(tenants_.Find(name).value_or(kDefaultTenant));
  }
  std::vector<bool> seen(catalog().expert_count());
  Actions actions;
  size_t count = 0;
  {
    absl::MutexLock lock(&mutex_);
    working_set_.RestorePolicy(saved.policy_state);
    for (const SavedWorkingSet::Expert& expert : saved.experts) {
      if (restores_.size() >= arena_->slot_count()) break;
      if (expert.expert >= catalog().expert_count() || seen[expert.expert]) continue;
      seen[expert.expert] = true;
      const int32_t tenant =
          expert.tenant < tenant_of.size() ? tenant_of[expert.tenant] : kDefaultTenant;
      restores_.push_back({expert.expert, static_cast<uint32_t>(tenant)});
    }
    count = restores_.size();
    Dispatch(actions);
  }
  RunOnPool(std::move(actions));
  return count;
}

void CachingExpertStore::StartRestores(Actions& actions) {
  if (stopping_ || restores_.empty() || DiskIsWanted()) return;
  while (!restores_.empty() && under_way_.restores() < kRestoresAtOnce) {
    const auto [expert, tenant] = restores_.front();
    restores_.pop_front();
    if (working_set_.Find(expert) || loads_.contains(expert)) continue;
    const int32_t owner = static_cast<int32_t>(tenant);
    const auto slot =
        working_set_.TakeSlot(WorkingSet::Purpose::kRestore, owner, clients_.pages());
    if (!slot) {
      // What has been demanded since has taken the rest; or the tenant's quota is used up.
      if (!working_set_.slots().any_free()) restores_.clear();
      continue;
    }
    auto& load = loads_[expert] = std::make_unique<ExpertLoad>();
    load->expert = expert;
    load->bytes = BytesOf(expert);
    load->tenant = owner;
    load->cause = ExpertLoad::Cause::kRestore;
    StartRead(*load, *slot, ReadControl::Urgency::kBackground, actions);
  }
}

SavedWorkingSet CachingExpertStore::SaveWorkingSet() {
  SavedWorkingSet saved;
  saved.model_digest = catalog().model_digest();
  for (int32_t tenant = 0; tenant < static_cast<int32_t>(tenants_.size()); ++tenant) {
    saved.tenants.push_back(tenants_[tenant].name);
  }
  std::vector<EvictionPolicy::Rank> ranks;
  std::vector<uint32_t> tenant_of(catalog().expert_count());
  std::vector<SavedWorkingSet::Expert> restores;
  {
    absl::MutexLock lock(&mutex_);
    TakeAllAccesses();
    ranks = working_set_.Ranks();
    for (const EvictionPolicy::Rank& rank : ranks) {
      tenant_of[rank.expert] = static_cast<uint32_t>(working_set_.tenant(rank.expert));
    }
    for (const ExpertLoad* load : under_way_.active()) {
      if (load->cause == ExpertLoad::Cause::kRestore) {
        restores.push_back({load->expert, static_cast<uint32_t>(load->tenant)});
      }
    }
    restores.insert(restores.end(), restores_.begin(), restores_.end());
    saved.policy_state = working_set_.SavePolicy();
  }
  for (int64_t expert : MostWantedFirst(std::move(ranks))) {
    saved.experts.push_back({expert, tenant_of[expert]});
  }
  // What is still to be put back is behind that: a kill now must not lose it.
  saved.experts.insert(saved.experts.end(), restores.begin(), restores.end());
  return saved;
}

PrefetchJudge::Counters CachingExpertStore::prefetch_counters() const {
  absl::MutexLock lock(&mutex_);
  return judge_.counters();
}

}  // namespace odmoe
