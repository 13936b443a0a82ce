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
    hits_ += client.page.hits();
    stall_ns_ += client.page.stall_ns();
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

uint64_t ClientRegistry::hits() const {
  uint64_t sum = hits_;
  for (const PinPage& page : pages_) sum += page.hits();
  return sum;
}

uint64_t ClientRegistry::stall_ns() const {
  uint64_t sum = stall_ns_;
  for (const PinPage& page : pages_) sum += page.stall_ns();
  return sum;
}

}  // namespace odmoe
