// A batch of experts pinned in an arena through a pin page: the hit path of every store.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/miss_board.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/residency_table.h"

namespace odmoe {

// What a client sees of a working set. The memory behind it outlives the batches.
struct ArenaView {
  const ExpertCatalog* catalog = nullptr;
  const std::byte* arena = nullptr;  // shape.address_bytes(), of which segments that are there
  ArenaShape shape;
  // By segment: whether it is mapped here. Null: whatever the store uses is.
  const std::atomic<bool>* mapped = nullptr;
  ResidencyTable table;
  PinPage page;

  // False for an expert the catalog does not have.
  bool Resident(ExpertId id) const {
    const int64_t expert = catalog->IndexOf(id);
    return expert >= 0 && table.Find(expert).has_value();
  }

  bool Mapped(uint32_t slot) const {
    return mapped == nullptr || mapped[shape.SegmentOf(slot)].load();
  }
};

// The store a batch came from. Outlives its batches. Thread-safe.
class BatchOwner {
 public:
  virtual ~BatchOwner() = default;
  // Why an expert has not come by the deadline.
  virtual absl::Status Overdue(int64_t expert) const = 0;
  // A batch has dropped its pins. `board`, null for a batch of hits, has unanswered misses if
  // `unanswered`.
  virtual void BatchReleased(const MissBoard* board, bool unanswered) = 0;
};

class PinnedBatch final : public ExpertBatch {
 public:
  // Pins what is resident, without a call, as far as the page has room; the rest is missing().
  // NOT_FOUND: an unknown id. RESOURCE_EXHAUSTED: more than `max_batch` distinct ids. Then nothing
  // is pinned.
  static absl::StatusOr<std::unique_ptr<PinnedBatch>> PinResident(const ArenaView& view,
                                                                  BatchOwner& owner,
                                                                  absl::Span<const ExpertId> ids,
                                                                  absl::Time deadline,
                                                                  size_t max_batch);
  ~PinnedBatch() override;
  PinnedBatch(const PinnedBatch&) = delete;
  PinnedBatch& operator=(const PinnedBatch&) = delete;

  // Indices of the experts still to come, in the order of board()'s entries. Whoever serves them
  // answers on the board.
  const std::vector<int64_t>& missing() const { return missing_; }
  // Null when nothing is missing.
  const std::shared_ptr<MissBoard>& board() const { return board_; }

  size_t size() const override { return entries_.size(); }
  bool Ready(size_t i) override;
  bool AwaitReady(size_t i, absl::Time until) override;
  absl::StatusOr<ExpertView> Wait(size_t i) override;
  size_t hits() const override { return hits_; }

 private:
  // Waits, and counts the wait as a stall.
  std::optional<absl::StatusOr<uint32_t>> Await(int32_t miss, absl::Time until);
  struct Entry {
    int64_t expert = 0;
    const ExpertLayout* layout = nullptr;
    int32_t miss = -1;      // entry of the board, or -1: pinned from the start
    uint32_t slot = 0;      // when miss < 0
    bool duplicate = false; // of an earlier entry, which owns the pin
  };

  PinnedBatch(const ArenaView& view, BatchOwner& owner, absl::Time deadline)
      : view_(view), owner_(owner), deadline_(deadline) {}
  // The number of distinct experts.
  absl::StatusOr<size_t> Resolve(absl::Span<const ExpertId> ids, size_t max_batch);
  void Pin(size_t distinct);
  ExpertView View(const Entry& entry, uint32_t slot) const;

  ArenaView view_;
  BatchOwner& owner_;
  absl::Time deadline_;
  std::vector<Entry> entries_;
  std::vector<int64_t> missing_;
  std::shared_ptr<MissBoard> board_;
  size_t hits_ = 0;
};

}  // namespace odmoe
