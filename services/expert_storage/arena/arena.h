// The budget as memory: slots, one expert's place each.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/expert_storage/arena/shared_region.h"

namespace odmoe {

// A slot of `expert_bytes` is a whole number of pages, so that direct reads land in place.
uint64_t SlotBytes(uint64_t expert_bytes);

// All slots, in one region of exactly slot_count * slot_bytes: the working set cannot outgrow it.
// The slots' contents are the caller's to guard; the arena itself is immutable.
class Arena {
 public:
  // Requires slot_bytes from SlotBytes, and slot_count > 0. Errors as SharedRegion::Create.
  static absl::StatusOr<std::unique_ptr<Arena>> Create(uint64_t slot_bytes, uint64_t slot_count,
                                                       bool shareable);

  uint64_t slot_bytes() const { return slot_bytes_; }
  uint64_t slot_count() const { return slot_count_; }
  // Requires slot < slot_count().
  absl::Span<std::byte> Slot(uint32_t slot) const {
    return region_->bytes().subspan(slot * slot_bytes_, slot_bytes_);
  }
  const SharedRegion& region() const { return *region_; }

 private:
  Arena(uint64_t slot_bytes, uint64_t slot_count, std::unique_ptr<SharedRegion> region);
  uint64_t slot_bytes_;
  uint64_t slot_count_;
  std::unique_ptr<SharedRegion> region_;
};

}  // namespace odmoe
