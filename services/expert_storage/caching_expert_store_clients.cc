// The clients of CachingExpertStore: sessions, mappings, and what their pin pages tell.
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {

absl::StatusOr<std::shared_ptr<StoreClient>> CachingExpertStore::AttachClient(
    std::string name, absl::string_view tenant) {
  ODMOE_ASSIGN_OR_RETURN(const int32_t index, tenants_.Find(tenant));
  absl::MutexLock lock(&mutex_);
  return MakeClient(std::move(name), index);
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
  TakeAccesses(client);
  working_set_.ClientGone(client.id);
  clients_.Remove(client);
  slot_may_be_free_ = true;
  look_now_.Signal();
}

void CachingExpertStore::NoteDemand(StoreClient& client, int64_t expert) {
  client.layer_clocks[layer_of_[expert]] = ++demand_clock_;
  working_set_.Demanded(client.id, client.tenant, expert);
}

void CachingExpertStore::TakeAccesses(StoreClient& client) {
  accesses_.clear();
  client.page.TakeAccesses(table_.shape().expert_count, client.ring_position, accesses_);
  for (int64_t expert : accesses_) NoteDemand(client, expert);
}

void CachingExpertStore::TakeAllAccesses() {
  for (const auto& client : clients_.all()) TakeAccesses(*client);
}

}  // namespace odmoe
