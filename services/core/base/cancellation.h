// A request's wish to stop, passed down to the work done for it.
#pragma once

#include <atomic>

namespace odmoe {

// One-way flag, set by the one who asked and polled by the one who works. Thread-safe.
class Cancellation {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  // The same, but unfinished work that can be gone on with later stays.
  void CancelAndKeepWork() {
    keeps_work_.store(true, std::memory_order_release);
    Cancel();
  }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  bool keeps_work() const { return keeps_work_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> keeps_work_{false};
};

}  // namespace odmoe
