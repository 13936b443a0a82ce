// What to evict.
#pragma once

#include <cstdint>

namespace odmoe {

// A tenant's dense index; 0 is who belongs to none.
inline constexpr int32_t kDefaultTenant = 0;
// Whoever's.
inline constexpr int32_t kAnyTenant = -1;

// Orders the resident experts by who should go first. Experts are dense indices below the count it
// was made for, as the catalog numbers them; clients are numbers that are never used twice; tenants
// are small dense indices. Deterministic: the same calls give the same victims. Not thread-safe:
// the store calls it under its lock, so every call takes time that does not grow with the number of
// experts resident.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // A client demanded an expert, resident or not. Comes in each client's order, the experts of a
  // layer together, and for an absent expert before it is Inserted.
  virtual void Demanded(uint64_t client, int64_t expert) = 0;
  // Expert became resident at a tenant's charge, because it was demanded or was wished for.
  virtual void Inserted(int64_t expert, int32_t tenant) = 0;
  // A resident expert is at another tenant's charge from now on.
  virtual void HandedOver(int64_t expert, int32_t tenant) = 0;
  // A resident expert could not go, since it is pinned: others come first now.
  virtual void Skipped(int64_t expert) = 0;
  // Expert is resident no more.
  virtual void Removed(int64_t expert) = 0;
  // The resident expert to go next, of a tenant's or, for kAnyTenant, of all; -1: there is none.
  virtual int64_t Victim(int32_t tenant) = 0;
  // The client will demand nothing more.
  virtual void ClientGone(uint64_t) {}
  // Bytes it has allocated.
  virtual uint64_t bookkeeping_bytes() const = 0;
};

}  // namespace odmoe
