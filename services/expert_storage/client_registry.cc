#include "services/expert_storage/client_registry.h"

#include <utility>

namespace odmoe {

void ClientRegistry::Add(std::shared_ptr<StoreClient> client) {
  pages_.push_back(client->page);
  clients_.push_back(std::move(client));
}

bool ClientRegistry::Remove(const StoreClient& client) {
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].get() != &client) continue;
    if (gone_.size() <= static_cast<size_t>(client.tenant)) gone_.resize(client.tenant + 1);
    gone_[client.tenant] += UseOf(client);
    pages_.erase(pages_.begin() + static_cast<ptrdiff_t>(i));
    clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(i));  // may be the end of `client`
    return true;
  }
  return false;
}

const StoreClient* ClientRegistry::Find(uint64_t id) const {
  for (const auto& client : clients_) {
    if (client->id == id) return client.get();
  }
  return nullptr;
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
