// How the stores of one host share its disks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace odmoe {

// Each store schedules its own tenants' demands, and knows nothing of another model's on the same
// disk. What they have at the disk at once decides who gets how much of it; so the bytes that it is
// to have under way are divided among the stores whose tenants demand any, by those tenants'
// shares. A tenant that demands of several models divides its share evenly among them: it gets no
// more of the disk by opening a model twice.
//
// There is nothing to wait for: a store that is to have less starts no further reads until it has,
// and one that may have more sees so when a read of its own ends, of which it has one at least.
//
// Thread-safe. Stores call it under their locks; it calls nobody.
class SharedDisks : public std::enable_shared_from_this<SharedDisks> {
 public:
  // What one store may take.
  struct Division {
    double part = 1.0;            // of the bytes to be under way
    std::vector<double> shares;   // of its tenants, against each other
  };

  // One store's place among the others, until it is destroyed.
  class Place {
   public:
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    // The tenants, a bit each, that have demands in this store: queued with slots to be had, or
    // being read.
    void SetDemanding(uint64_t tenants) {
      demanding_.store(tenants, std::memory_order_relaxed);
    }
    // Alone, it is all.
    Division Divide() const;
    // Another store on one of the same disks has demands.
    bool OthersDemand() const;

   private:
    friend class SharedDisks;
    Place(std::shared_ptr<SharedDisks> all, std::vector<uint64_t> disks,
          std::vector<double> shares)
        : all_(std::move(all)), disks_(std::move(disks)), shares_(std::move(shares)) {}
    bool Meets(const Place& other) const;

    const std::shared_ptr<SharedDisks> all_;
    const std::vector<uint64_t> disks_;
    const std::vector<double> shares_;
    std::atomic<uint64_t> demanding_{0};
  };

  // `disks`: whatever numbers them, as stat's st_dev. `shares` by tenant, at most 64, the same in
  // every store.
  std::unique_ptr<Place> Join(std::vector<uint64_t> disks, std::vector<double> shares);

 private:
  mutable absl::Mutex mutex_;
  std::vector<const Place*> places_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
