// The clients of a store.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "services/expert_storage/store_client.h"

namespace odmoe {

// All whose pins count, and what those that are gone have left. Not thread-safe: the store calls it
// under its lock.
class ClientRegistry {
 public:
  // Each takes a look at its pin page per eviction, and a page of memory.
  static constexpr size_t kMaxClients = 256;

  bool full() const { return clients_.size() >= kMaxClients; }
  uint64_t NewId() { return next_id_++; }
  void Add(std::shared_ptr<StoreClient> client);
  // Forgets the client, but for its counters. False: not of this registry.
  bool Remove(const StoreClient& client);
  // The client's pins count no more, though its process may still have the page mapped. False: they
  // did not.
  bool DropPins(const StoreClient& client);
  // Null: gone.
  const StoreClient* Find(uint64_t id) const;

  absl::Span<const std::shared_ptr<StoreClient>> all() const { return clients_; }
  // Of those whose pins count.
  absl::Span<const PinPage> pages() const { return pages_; }
  // What a client has had, its page's counters included.
  static UseCounters UseOf(const StoreClient& client);
  // What a tenant's clients have had that are gone.
  UseCounters UseOfThoseGone(int32_t tenant) const;
  // Of all clients ever.
  UseCounters UseOfAll() const;

 private:
  std::vector<std::shared_ptr<StoreClient>> clients_;
  std::vector<PinPage> pages_;
  std::vector<uint64_t> page_owners_;  // ids of their clients
  absl::flat_hash_map<uint64_t, const StoreClient*> by_id_;
  uint64_t next_id_ = 1;
  std::vector<UseCounters> gone_;  // by tenant: what clients had that are gone
};

}  // namespace odmoe
