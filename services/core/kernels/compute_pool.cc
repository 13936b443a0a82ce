#include "services/core/kernels/compute_pool.h"

#include <algorithm>

#include "hwy/cache_control.h"

namespace odmoe {
namespace {

// About 40 us of pauses on current x86 cores: longer than the serial code between two products of a
// forward pass, shorter than anybody's idea of an idle machine.
constexpr int kSpins = 1000;

}  // namespace

ComputePool::ComputePool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ComputePool::~ComputePool() {
  job_.store(-1);
  {
    absl::MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  for (std::thread& worker : workers_) worker.join();
}

// A worker joins by counting itself in and then looking whether the job is still open; the caller
// closes the job and then waits for the count to fall to zero. Whichever comes first, no worker
// touches a job that its caller has left, and a worker that sleeps through a job delays nobody.
void ComputePool::ParallelFor(int64_t count, int64_t grain, Body body) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) return body(0, count);
  body_ = &body;
  count_ = count;
  grain_ = grain;
  next_.store(0);
  open_.store(true);
  job_.fetch_add(1);
  if (sleepers_.load() > 0) {
    absl::MutexLock lock(&mutex_);
    wake_.SignalAll();
  }
  RunRanges();
  open_.store(false);
  for (int spins = 0; running_.load() > 0; ++spins) {
    // Past kSpins a worker has likely lost its processor, perhaps to this very loop.
    if (spins < kSpins) {
      hwy::Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ComputePool::RunRanges() {
  while (true) {
    const int64_t begin = next_.fetch_add(grain_);
    if (begin >= count_) return;
    (*body_)(begin, std::min(begin + grain_, count_));
  }
}

void ComputePool::WorkerLoop() {
  int64_t seen = 0;
  while ((seen = WaitForJob(seen)) >= 0) {
    running_.fetch_add(1);
    if (open_.load()) RunRanges();
    running_.fetch_sub(1);
  }
}

int64_t ComputePool::WaitForJob(int64_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    const int64_t job = job_.load();
    if (job != seen) return job;
    hwy::Pause();
  }
  absl::MutexLock lock(&mutex_);
  sleepers_.fetch_add(1);
  while (job_.load() == seen) wake_.Wait(&mutex_);
  sleepers_.fetch_sub(1);
  return job_.load();
}

}  // namespace odmoe
