// What to evict.
#pragma once

#include <cstdint>

namespace odmoe {

// Orders the resident experts by who should go first. Experts are dense indices below the count it
// was made for. Every call is O(1). Not thread-safe: the store calls it under its lock.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // Expert became resident.
  virtual void Inserted(int64_t expert) = 0;
  // A resident expert was demanded.
  virtual void Touched(int64_t expert) = 0;
  // A resident expert could not go, since it is pinned: others come first now.
  virtual void Skipped(int64_t expert) = 0;
  // Expert is resident no more.
  virtual void Removed(int64_t expert) = 0;
  // The resident expert to go next; -1: none is resident.
  virtual int64_t Victim() const = 0;
};

}  // namespace odmoe
