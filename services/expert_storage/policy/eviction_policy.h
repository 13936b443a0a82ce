// What to evict.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace odmoe {

// A tenant's dense index; 0 is who belongs to none.
inline constexpr int32_t kDefaultTenant = 0;
// Whoever's.
inline constexpr int32_t kAnyTenant = -1;

// Why an expert became resident: it was demanded; it was wished for, so that its layer's next visit
// finds it; or it was resident before the store was restarted.
enum class Arrival { kDemanded, kWished, kRestored };

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
  // Expert became resident at a tenant's charge. What is restored is wanted less than what was
  // demanded of late.
  virtual void Inserted(int64_t expert, int32_t tenant, Arrival arrival) = 0;
  // A resident expert is at another tenant's charge from now on.
  virtual void HandedOver(int64_t expert, int32_t tenant) = 0;
  // A resident expert could not go, since it is pinned: others come first now.
  virtual void Skipped(int64_t expert) = 0;
  // Expert is resident no more.
  virtual void Removed(int64_t expert) = 0;
  // The resident expert to go next, of a tenant's or, for kAnyTenant, of all; -1: there is none.
  virtual int64_t Victim(int32_t tenant) = 0;
  // True: a resident expert's next use is expected before the layer of another expert, which is
  // wished for, is visited next. False also where the policy has no idea of time.
  virtual bool ExpectedSooner(int64_t, int64_t) { return false; }
  // A resident expert and how much it is wanted: the lower, the more.
  struct Rank {
    double rank = 0.0;
    int64_t expert = 0;
  };
  // All residents, unsorted, but that of those with the same rank the first is wanted most. One
  // pass over all experts, so not for every demand.
  virtual std::vector<Rank> Ranks() = 0;
  // What it has learned about experts, for a policy of the same kind over the same model to go on
  // from after a restart; not who is resident.
  virtual std::string SaveState() const { return {}; }
  // False: not such a state; nothing has changed then.
  virtual bool RestoreState(absl::string_view state) { return state.empty(); }
  // The client will demand nothing more.
  virtual void ClientGone(uint64_t) {}
  // Bytes it has allocated.
  virtual uint64_t bookkeeping_bytes() const = 0;
};

// Of EvictionPolicy::Ranks: the victim last.
std::vector<int64_t> MostWantedFirst(std::vector<EvictionPolicy::Rank> ranks);

}  // namespace odmoe
