#include "services/expert_storage/client_registry.h"

#include <algorithm>
#include <utility>

namespace odmoe {

void ClientRegistry::Add(std::shared_ptr<StoreClient> client) {
  pages_.push_back(client->page);
  page_owners_.push_back(client->id);
  by_id_[client->id] = client.get();
  clients_.push_back(std::move(client));
}

bool ClientRegistry::DropPins(const StoreClient& client) {
  const auto owner = std::find(page_owners_.begin(), page_owners_.end(), client.id);
  if (owner == page_owners_.end()) return false;
  pages_.erase(pages_.begin() + (owner - page_owners_.begin()));
  page_owners_.erase(owner);
  return true;
}

bool ClientRegistry::Remove(const StoreClient& client) {
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].get() != &client) continue;
    if (gone_.size() <= static_cast<size_t>(client.tenant)) gone_.resize(client.tenant + 1);
    gone_[client.tenant] += UseOf(client);
    DropPins(client);
    by_id_.erase(client.id);
    clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(i));  // may be the end of `client`
    return true;
  }
  return false;
}

const StoreClient* ClientRegistry::Find(uint64_t id) const {
  const auto client = by_id_.find(id);
  return client == by_id_.end() ? nullptr : client->second;
}

UseCounters ClientRegistry::UseOf(const StoreClient& client) {
  UseCounters use = client.use;
  use.hits += client.page.hits();
  use.stall_ns += client.page.stall_ns();
  return use;
}

UseCounters ClientRegistry::UseOfThoseGone(int32_t tenant) const {
  return static_cast<size_t>(tenant) < gone_.size() ? gone_[tenant] : UseCounters();
}

UseCounters ClientRegistry::UseOfAll() const {
  UseCounters sum;
  for (const UseCounters& gone : gone_) sum += gone;
  for (const auto& client : clients_) sum += UseOf(*client);
  return sum;
}

}  // namespace odmoe
