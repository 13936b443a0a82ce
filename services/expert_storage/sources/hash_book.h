// The hashes experts' bytes must have, and hashing while they arrive.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "services/core/base/thread_pool.h"
#include "services/core/experts/expert_catalog.h"

namespace odmoe {

// What each expert's XXH3-64 should be: by the catalog, or where that has none, as in a GGUF model,
// what it was when the expert was first read; 8 bytes an expert. Thread-safe.
class HashBook {
 public:
  // `catalog` outlives it.
  explicit HashBook(const ExpertCatalog& catalog);

  // DATA_LOSS: it is another hash than expected. `expert` is an index of the catalog.
  absl::Status Check(int64_t expert, uint64_t hash);
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }

 private:
  const ExpertCatalog& catalog_;
  // 0: not read yet; empty where the catalog has them all.
  std::vector<std::atomic<uint64_t>> seen_;
  std::atomic<uint64_t> failures_{0};
};

// Hashes an expert on a pool while its pieces arrive, so that little is left to do when the last
// one has. Thread-safe.
class RunningHash : public std::enable_shared_from_this<RunningHash> {
 public:
  // `bytes` stay valid until Finish or Abandon has called back, `pool` outlives it.
  static std::shared_ptr<RunningHash> Create(absl::Span<const std::byte> bytes, ThreadPool& pool);

  // Bytes [begin, end) are there. In any order, without overlaps.
  void Landed(uint64_t begin, uint64_t end);
  // All have landed; `done` gets their XXH3-64, from this thread or one of the pool.
  void Finish(std::function<void(uint64_t hash)> done);
  // No more will land; `done` is called once nothing looks at the bytes any more.
  void Abandon(std::function<void()> done);

 private:
  struct State;  // of XXH3
  struct FreeState {
    void operator()(State* state) const;
  };
  RunningHash(absl::Span<const std::byte> bytes, ThreadPool& pool);
  void Work();
  // Joins pieces to the run that starts at 0.
  void Join(uint64_t begin, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Span<const std::byte> bytes_;
  ThreadPool& pool_;
  const std::unique_ptr<State, FreeState> state_;  // only of who has set working_

  absl::Mutex mutex_;
  uint64_t landed_ ABSL_GUARDED_BY(mutex_) = 0;  // from 0 on, without a gap
  std::map<uint64_t, uint64_t> pieces_ ABSL_GUARDED_BY(mutex_);  // past a gap: begin -> end
  uint64_t hashed_ ABSL_GUARDED_BY(mutex_) = 0;
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void(uint64_t)> on_hash_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_abandon_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace odmoe
