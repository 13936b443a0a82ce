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
  // Reads begin but do not end before Release, as do those of one expert after Hang.
  void Hold();
  void Hang(ExpertId id);
  void Release();
  // Ends the read that is held longest; requires one. Others stay held.
  void ReleaseOldest();
  // Waits until so many reads are held; false: a minute has passed.
  bool AwaitHeld(size_t count);

  uint64_t reads(ExpertId id) const;  // begun
  uint64_t reads() const;             // begun, of all experts
  std::vector<ExpertId> order() const;  // of all reads begun
  // Of an expert whose read is held: its control; null if none is.
  std::shared_ptr<const ReadControl> control(ExpertId id) const;

 private:
  friend class FaultyExpertSource;
  // The read begins; what `go` does is done now, or at Release.
  void Begin(ExpertId id, std::shared_ptr<const ReadControl> control, std::function<void()> go);
  absl::Status Failure(ExpertId id) const;
  bool Corrupted(ExpertId id) const;

  mutable absl::Mutex mutex_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  struct HeldRead {
    ExpertId id;
    std::shared_ptr<const ReadControl> control;
    std::function<void()> go;
  };
  std::vector<HeldRead> held_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<ExpertId> hanging_ ABSL_GUARDED_BY(mutex_);
  std::vector<ExpertId> order_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ExpertId, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<ExpertId> corrupted_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ExpertId, uint64_t> reads_ ABSL_GUARDED_BY(mutex_);
};

class FaultyExpertSource final : public ExpertSource {
 public:
  // `desired_bytes`, if not 0, is what it says it wants under way. A read that was cancelled while
  // it was held fails with CANCELLED.
  FaultyExpertSource(std::unique_ptr<ExpertSource> real, std::shared_ptr<ReadFaults> faults,
                     uint64_t desired_bytes = 0)
      : faults_(std::move(faults)), desired_bytes_(desired_bytes), real_(std::move(real)) {}
  // Lets held reads go.
  ~FaultyExpertSource() override { faults_->Release(); }

  const ExpertCatalog& catalog() const override { return real_->catalog(); }
  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override;
  uint64_t desired_bytes_under_way() const override {
    return desired_bytes_ > 0 ? desired_bytes_ : real_->desired_bytes_under_way();
  }

 private:
  const std::shared_ptr<ReadFaults> faults_;
  const uint64_t desired_bytes_;
  const std::unique_ptr<ExpertSource> real_;  // last: its destruction waits for its reads
};

}  // namespace odmoe
