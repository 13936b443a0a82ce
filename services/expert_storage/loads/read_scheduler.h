// Which demanded expert is read next.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"

namespace odmoe {

// Weighted fair queueing over tenants, by bytes: each tenant has a virtual time that its reads move
// on by their bytes over its disk share, and of those with anything queued the one furthest behind
// goes next. A tenant that had nothing queued starts at the present: what it did not use is not
// saved up. (Start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996.)
//
// So a tenant waits, beside what is under way at the source, for one turn of each other tenant and
// otherwise gets its share of the disk's bytes, however much the others have queued.
//
// Within a tenant: in the order asked. The experts of one request are read together, without
// another tenant's between them, for a turn's bytes at most: a layer is of no use by halves.
//
// O(tenants) a call, but for Drop. Not thread-safe: the store calls it under its lock.
class ReadScheduler {
 public:
  struct Entry {
    int64_t expert = 0;
    uint64_t bytes = 0;
    uint64_t request = 0;  // what is asked for together has the same, and is pushed in a row
  };
  struct Pick {
    int32_t tenant = 0;
    Entry entry;
  };

  // `disk_shares` by tenant, above 0.
  ReadScheduler(std::vector<double> disk_shares, uint64_t turn_bytes);

  // Another share for a tenant, above 0, from now on.
  void SetShare(int32_t tenant, double share) { queues_[tenant].share = share; }
  void Push(int32_t tenant, const Entry& entry);
  // What goes next; stays where it is. Nothing: nothing is queued but for blocked tenants.
  std::optional<Pick> Next() const;
  // Takes what Next gave. It is charged by Charge: to its tenant, or to several in parts.
  void Take(const Pick& pick);
  void Charge(int32_t tenant, uint64_t bytes);
  // Drops an expert from a tenant's queue. O(its length).
  void Drop(int32_t tenant, int64_t expert);
  // Passes a tenant over until UnblockAll: there is no slot for it now.
  void Block(int32_t tenant);
  void UnblockAll();
  bool any_blocked() const { return blocked_ > 0; }
  bool blocked(int32_t tenant) const { return queues_[tenant].blocked; }

  bool empty() const { return queued_ == 0; }
  // Tenants, a bit each, that have anything queued and are not blocked. Requires 64 at most.
  uint64_t waiting() const;
  size_t queued() const { return queued_; }  // entries
  uint64_t queued_bytes(int32_t tenant) const { return queues_[tenant].bytes; }
  uint64_t charged_bytes(int32_t tenant) const { return queues_[tenant].charged; }

 private:
  struct Queue {
    double share = 1.0;
    double virtual_time = 0.0;
    bool blocked = false;
    uint64_t bytes = 0;    // queued
    uint64_t charged = 0;  // ever
    std::deque<Entry> entries;
  };
  struct Turn {
    int32_t tenant = 0;
    uint64_t request = 0;
    uint64_t bytes = 0;  // taken in it
  };

  bool TurnGoesOn() const;

  const uint64_t turn_bytes_;
  std::vector<Queue> queues_;
  std::optional<Turn> turn_;
  double virtual_now_ = 0.0;
  size_t queued_ = 0;
  size_t blocked_ = 0;
};

}  // namespace odmoe
