// The clients of CachingExpertStore: sessions, mappings, and what their pin pages tell.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/descriptor_reserve.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {
namespace {

// Accesses taken at once from clients' pages, for all of which the policies are told: some hundred
// microseconds.
constexpr uint64_t kAccessesAtOnce = 512;

}  // namespace

absl::StatusOr<std::shared_ptr<StoreClient>> CachingExpertStore::AttachClient(
    std::string name, absl::string_view tenant) {
  ODMOE_ASSIGN_OR_RETURN(const int32_t index, tenants_.Find(tenant));
  absl::MutexLock lock(&mutex_);
  ODMOE_ASSIGN_OR_RETURN(auto client, MakeClient(std::move(name), index));
  client->kind = StoreClient::Kind::kSession;
  client->most_allowed = 0;
  SetSlotLimit(*client);
  return client;
}

size_t CachingExpertStore::MaxBatchOf(int32_t tenant) const {
  if (!tenants_[tenant].cache.has_value()) return max_batch();
  // As of all slots: half of the quota, but a layer's demand at least.
  const uint64_t slots = tenants_.QuotaBytes(tenant, budget_bytes()) / arena_->shape().slot_bytes;
  return std::min<uint64_t>(max_batch(), std::max<uint64_t>(demand_, slots / 2));
}

absl::StatusOr<std::shared_ptr<StoreClient>> CachingExpertStore::MakeClient(std::string name,
                                                                             int32_t tenant) {
  if (clients_.full()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the store has ", ClientRegistry::kMaxClients, " clients, and serves no more"));
  }
  SharedRegion::Options options;
  options.name = "odmoe-pin-page";
  options.bytes = PinPage::BytesFor(arena_->shape().slot_limit());
  options.shareable = shareable_;
  options.clients_write = true;
  ODMOE_ASSIGN_OR_RETURN(auto region, SharedRegion::Create(options));
  if (shareable_ && InDescriptorReserve(region->fd())) {
    return absl::ResourceExhaustedError(
        "the store has no descriptor to spare for another client; raise its limit of open files "
        "(ulimit -n), or try again when others have left");
  }
  const PinPage page = PinPage::Format(region->bytes(), epoch_, arena_->shape().slot_limit());
  auto client = std::make_shared<StoreClient>(clients_.NewId(), std::move(name), tenant,
                                              std::move(region), page, catalog().layers().size());
  clients_.Add(client);
  return client;
}

void CachingExpertStore::EndMapping(const std::shared_ptr<StoreClient>& client) {
  absl::MutexLock lock(&mutex_);
  client->mapped = false;
  client->channel.reset();
  RetireIfGone(*client);
}

void CachingExpertStore::EndSession(const std::shared_ptr<StoreClient>& client) {
  absl::MutexLock lock(&mutex_);
  if (!client->open) return;
  client->open = false;
  WithdrawIf([&](const Demand& demand) { return demand.client == client; });
  counters_.prefetch_dropped += prefetches_.Cancel(client->id);
  RetireIfGone(*client);
}

void CachingExpertStore::RetireIfGone(StoreClient& client) {
  if (client.open || client.mapped) return;
  client.ring_due = client.page.accesses();
  TakeAccesses(client, kAccessesAtOnce);
  working_set_.ClientGone(client.id);
  clients_.Remove(client);
  slot_may_be_free_ = true;
  look_now_.Signal();
}

void CachingExpertStore::NoteDemand(StoreClient& client, int64_t expert, bool missed) {
  const int32_t layer = layer_of_[expert];
  if (layer < client.last_layer) ++client.passes;
  client.last_layer = layer;
  client.layer_clocks[layer] = ++demand_clock_;
  const uint64_t useful = working_set_.counters().prefetch_useful;
  working_set_.Demanded(client.id, client.tenant, expert);
  if (working_set_.counters().prefetch_useful > useful) judge_.Useful(BytesOf(expert));
  judge_.Demanded(expert, missed, BytesOf(expert));
}

uint64_t CachingExpertStore::TakeAccesses(StoreClient& client, uint64_t most) {
  accesses_.clear();
  client.page.TakeAccesses(table_.shape().expert_count, client.ring_due, most,
                           client.ring_position, accesses_);
  for (int64_t expert : accesses_) NoteDemand(client, expert, /*missed=*/false);
  return accesses_.size();
}

void CachingExpertStore::TakeAllAccesses() {
  for (const auto& client : clients_.all()) client->ring_due = client->page.accesses();
  TakeDueAccesses();
  if (accesses_due_) WakeWatchIfEarlier();
}

void CachingExpertStore::TakeDueAccesses() {
  recorder_.SetNow(absl::GetCurrentTimeNanos());
  const auto clients = clients_.all();
  uint64_t left = kAccessesAtOnce;
  accesses_due_ = false;
  for (size_t i = 0; i < clients.size(); ++i) {
    StoreClient& client = *clients[(first_taken_ + i) % clients.size()];
    if (client.ring_position == client.ring_due) continue;
    left -= TakeAccesses(client, left);
    accesses_due_ |= client.ring_position != client.ring_due;
  }
  ++first_taken_;
}

void CachingExpertStore::SetSlotLimit(StoreClient& client) {
  if (client.kind != StoreClient::Kind::kSession) return;
  client.slot_limit = PinLimit(client);
  client.most_allowed = std::max(client.most_allowed, client.slot_limit);
  PinPage page = client.page;
  page.SetSlotLimit(
      static_cast<uint32_t>(std::min<uint64_t>(client.slot_limit, PinPage::kNoLimit)));
}

void CachingExpertStore::EndOverholders() {
  struct Held {
    std::shared_ptr<StoreClient> client;
    uint64_t limit;
  };
  std::vector<Held> sessions;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& client : clients_.all()) {
      if (client->kind == StoreClient::Kind::kSession) {
        sessions.push_back({client, client->slot_limit});
      }
    }
  }
  for (const auto& [client, limit] : sessions) {
    // After the limit was set, and what it counts itself first (PinPage::ReserveRoomForHits).
    const uint64_t counted = client->page.held();
    const uint64_t pinned = client->page.CountPinned();
    {
      absl::MutexLock lock(&mutex_);
      if (client->slot_limit == limit && std::max(counted, pinned) <= limit) {
        client->most_allowed = limit;
      }
      if (pinned <= client->most_allowed || !clients_.DropPins(*client)) continue;
      slot_may_be_free_ = true;
    }
    EndSession(client);
    if (client->expel) {
      client->expel(absl::ResourceExhaustedError(absl::StrCat(
          "the client pins ", pinned, " slots of the ", limit,
          " that it may, while others wait for one: its session is ended, and its pins with it")));
    }
  }
}

}  // namespace odmoe
