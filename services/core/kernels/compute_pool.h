// Threads that share the arithmetic of one step.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace odmoe {

// A fixed set of threads beside the calling one. A worker looks for work in a tight loop for some
// microseconds after its last, since a forward pass hands out the next piece at once, and then
// sleeps. One ParallelFor at a time: callers take turns.
class ComputePool {
 public:
  using Body = absl::FunctionRef<void(int64_t begin, int64_t end)>;

  // `threads` counts the caller's; 1 starts none. Requires threads >= 1.
  explicit ComputePool(int threads);
  ~ComputePool();
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;

  // Calls body over ranges that cover [0, count), `grain` long each but for the last; returns when
  // all have. Which thread gets which range is left open. `body` must not call ParallelFor.
  void ParallelFor(int64_t count, int64_t grain, Body body);

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  void WorkerLoop();
  void RunRanges();
  // The number of the first job that is not `seen`, or -1 to stop.
  int64_t WaitForJob(int64_t seen);

  // The job at hand. Written only while it is closed and nobody runs.
  const Body* body_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  std::atomic<int64_t> next_{0};    // start of the first range not taken
  std::atomic<bool> open_{false};   // workers may join
  std::atomic<int> running_{0};     // workers that have joined, or are finding out they may not
  std::atomic<int64_t> job_{0};     // grows with each job; -1 to stop
  std::atomic<int> sleepers_{0};

  absl::Mutex mutex_;
  absl::CondVar wake_;
  std::vector<std::thread> workers_;
};

}  // namespace odmoe
