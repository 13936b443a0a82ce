// A client of the caching store, as the store sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "services/core/experts/pin_page.h"
#include "services/expert_storage/arena/shared_region.h"

namespace odmoe {

// The in-process caller, or a session of another process. What is not const is the store's, under
// its lock.
struct StoreClient {
  StoreClient(uint64_t id, std::string name, int32_t tenant, std::unique_ptr<SharedRegion> region,
              PinPage page, size_t layers)
      : id(id), name(std::move(name)), tenant(tenant), region(std::move(region)), page(page),
        layer_clocks(layers, 0) {}

  const uint64_t id;       // never used again in this store
  const std::string name;  // as the client calls itself
  const int32_t tenant;    // entry of the store's TenantTable
  const std::unique_ptr<SharedRegion> region;
  const PinPage page;

  uint64_t ring_position = 0;          // accesses of the page's ring already taken
  std::vector<uint64_t> layer_clocks;  // the demand clock at the last demand, by catalog layer
  bool open = true;                    // the session has not ended
  bool mapped = false;                 // the process may still have the page mapped
};

}  // namespace odmoe
