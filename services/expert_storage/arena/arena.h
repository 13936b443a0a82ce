// The budget as memory: slots, one expert's place each.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "services/core/experts/arena_shape.h"
#include "services/expert_storage/arena/shared_region.h"

namespace odmoe {

// A slot of `expert_bytes` is a whole number of pages, so that direct reads land in place.
uint64_t SlotBytes(uint64_t expert_bytes);

// Segments for a budget of `slots` now that may become any: at most 1/64 of it each, so that little
// is evicted when it shrinks by less, and at most 512 for all experts. `segment_slots` above 0 says
// otherwise. INVALID_ARGUMENT: no slots, or more than an address space holds.
absl::StatusOr<ArenaShape> MakeArenaShape(uint64_t slot_bytes, uint64_t expert_count,
                                          uint64_t slots, uint32_t segment_slots = 0);

// All slots there are: the working set cannot outgrow them. A sealed memfd can neither shrink nor
// give pages back, so the arena is made of segments, which come and go whole, in one reserved range
// of addresses: a slot's address never changes. The slots' contents are the caller's to guard, and
// that nobody uses those of a segment that goes. Thread-safe.
class Arena {
 public:
  struct Options {
    ArenaShape shape;
    bool shareable = false;
    HugePages huge_pages = HugePages::kAuto;
    bool lock_memory = false;  // where the system allows it
  };
  struct Segment {
    uint32_t number = 0;
    uint32_t slots = 0;
    int fd = -1;  // the sealed memfd, the arena's; -1 when not shareable
  };
  // What the system granted of what was asked for.
  struct Grants {
    uint64_t huge_page_bytes = 0;
    uint64_t locked_bytes = 0;
  };

  // Reserves addresses, takes no memory. RESOURCE_EXHAUSTED: no address space. Where there is not
  // enough for the shape's segments, `least_segments` will do, and shape() says so.
  static absl::StatusOr<std::unique_ptr<Arena>> Create(const Options& options,
                                                       uint32_t least_segments);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  const ArenaShape& shape() const { return shape_; }
  const std::byte* base() const { return base_; }
  // Requires a slot of a segment that is there.
  absl::Span<std::byte> Slot(uint32_t slot) const {
    return {base_ + shape_.SlotOffset(slot), shape_.slot_bytes};
  }

  // Memory for a segment that is not there. Errors as SharedRegion::Create.
  absl::Status Add(uint32_t segment, uint32_t slots);
  // Gives back a segment's memory, and forgets it.
  void Remove(uint32_t segment);

  // Those there are, by number.
  std::vector<Segment> segments() const;
  uint64_t slot_count() const;
  uint64_t bytes() const { return slot_count() * shape_.slot_bytes; }
  // Looks at every mapping of the process: not cheap where huge pages are possible.
  Grants MeasureGrants() const;

 private:
  struct Held {
    uint32_t slots = 0;
    std::unique_ptr<SharedRegion> region;  // null: not there
  };

  Arena(const Options& options, const ArenaShape& shape, std::byte* reserved,
        uint64_t reserved_bytes);

  const ArenaShape shape_;
  const Options options_;
  std::byte* const reserved_;
  const uint64_t reserved_bytes_;
  std::byte* const base_;  // within reserved_, where a huge page begins

  mutable absl::Mutex mutex_;
  std::vector<Held> segments_ ABSL_GUARDED_BY(mutex_);  // shape_.segment_limit
};

}  // namespace odmoe
