// A store whose every expert is at hand, and which a test makes late, short of room, or fail.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/core/experts/expert_store.h"
#include "services/core/formats/model_directory.h"

namespace odmoe {

// Reads a model directory's experts into memory and serves them. Set the knobs before sharing it
// between threads; the rest is thread-safe.
class ControlledExpertStore : public ExpertStore {
 public:
  // The test fails where the directory cannot be read.
  explicit ControlledExpertStore(const std::string& model_directory);

  // Experts one batch may hold.
  size_t batch_limit = 1 << 20;
  // True: nothing is ready before it is waited for, so that experts are computed one by one.
  bool late = false;
  // True, with `late`: the last experts of a batch are ready, the first are not.
  bool last_first = false;
  // Whether an expert is resident, where somebody asks beforehand. Empty: all are.
  std::function<bool(ExpertId)> resident;
  // Called with each Acquire's ids; an error is what Acquire returns.
  std::function<absl::Status(absl::Span<const ExpertId>)> on_acquire;
  // Called by AwaitReady for an expert that is not ready, with until when; what it returns.
  // Empty: true, as if it had come.
  std::function<bool(ExpertId, absl::Time)> on_await;
  // What Wait returns for an expert. Empty: its bytes.
  std::function<absl::Status(ExpertId)> on_wait;

  // All ids that were prefetched, in order.
  std::vector<ExpertId> prefetched() const;
  // The most ids in one Acquire.
  size_t largest_batch() const;
  // Batches that live now.
  int open_batches() const;

  const ExpertCatalog& catalog() const override { return registry_.catalog; }
  absl::StatusOr<std::unique_ptr<ExpertBatch>> Acquire(absl::Span<const ExpertId> ids,
                                                       absl::Time deadline) override;
  bool Resident(ExpertId id) const override { return !resident || resident(id); }
  void Prefetch(absl::Span<const ExpertId> ids) override;
  size_t max_batch() const override { return batch_limit; }
  absl::StatusOr<StoreStats> Stats() override;

 private:
  class Batch;

  ExpertRegistry registry_;
  std::vector<std::vector<std::byte>> bytes_;  // by ExpertCatalog::IndexOf
  mutable absl::Mutex mutex_;
  std::vector<ExpertId> prefetched_ ABSL_GUARDED_BY(mutex_);
  size_t largest_batch_ ABSL_GUARDED_BY(mutex_) = 0;
  int open_batches_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t misses_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace odmoe
