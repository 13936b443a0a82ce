// How urgent a read is, and whether anybody still wants it.
#pragma once

#include <atomic>

namespace odmoe {

// Shared by who asked for a read and who reads. Looked at before each request to the device, so
// that what has been asked for meanwhile waits for one of them at most. Thread-safe, lock-free.
class ReadControl {
 public:
  // Most urgent first.
  enum class Urgency {
    kDemand,      // somebody waits
    kPrefetch,    // somebody may soon
    kBackground,  // nobody does: a working set being put back after a restart
  };

  explicit ReadControl(Urgency urgency) : urgency_(urgency) {}

  Urgency urgency() const { return urgency_.load(std::memory_order_relaxed); }
  // Somebody waits now.
  void Raise() { urgency_.store(Urgency::kDemand, std::memory_order_relaxed); }

  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // Nobody wants it any more. The read may still come to its end.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  std::atomic<Urgency> urgency_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace odmoe
