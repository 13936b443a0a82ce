// A source whose reads a test can fail, corrupt or hold back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "services/core/experts/expert_source.h"

namespace odmoe {

// What a test wants of the reads, and what it has seen of them. Outlives the source by shared
// ownership. Thread-safe.
class ReadFaults {
 public:
  // Every read of the expert fails so, until Heal.
  void Fail(ExpertId id, absl::Status status);
  // Every read of the expert delivers bytes with one bit changed, until Heal.
  void Corrupt(ExpertId id);
  void Heal(ExpertId id);
  // Reads begin but do not end before Release.
  void Hold();
  void Release();
  // Waits until so many reads are held; false: a minute has passed.
  bool AwaitHeld(size_t count);

  uint64_t reads(ExpertId id) const;  // begun
  uint64_t reads() const;             // begun, of all experts

 private:
  friend class FaultyExpertSource;
  // The read begins; what `go` does is done now, or at Release.
  void Begin(ExpertId id, std::function<void()> go);
  absl::Status Failure(ExpertId id) const;
  bool Corrupted(ExpertId id) const;

  mutable absl::Mutex mutex_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ExpertId, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<ExpertId> corrupted_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ExpertId, uint64_t> reads_ ABSL_GUARDED_BY(mutex_);
};

class FaultyExpertSource final : public ExpertSource {
 public:
  FaultyExpertSource(std::unique_ptr<ExpertSource> real, std::shared_ptr<ReadFaults> faults)
      : faults_(std::move(faults)), real_(std::move(real)) {}
  // Lets held reads go.
  ~FaultyExpertSource() override { faults_->Release(); }

  const ExpertCatalog& catalog() const override { return real_->catalog(); }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;

 private:
  const std::shared_ptr<ReadFaults> faults_;
  const std::unique_ptr<ExpertSource> real_;  // last: its destruction waits for its reads
};

}  // namespace odmoe
