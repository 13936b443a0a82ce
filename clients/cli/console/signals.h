// Ctrl-C and termination: the first asks the work to stop, the second ends the process.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "services/core/base/cancellation.h"

namespace odmoe {

// While it lives, SIGINT and SIGTERM cancel instead of killing. Construct it before any thread that
// the work starts, so that they inherit the blocked signals; at most one at a time.
class SignalScope {
 public:
  // `on_first` runs once, on a thread of its own, after the cancellation is set. May be null.
  explicit SignalScope(std::function<void()> on_first = nullptr);
  ~SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

  const Cancellation& cancellation() const { return cancellation_; }
  // The signal received, or 0.
  int signal() const { return signal_.load(std::memory_order_acquire); }

 private:
  void Watch();

  Cancellation cancellation_;
  std::atomic<int> signal_{0};
  std::function<void()> on_first_;
  int stop_fd_ = -1;
  int signal_fd_ = -1;
  std::thread watcher_;
};

}  // namespace odmoe
