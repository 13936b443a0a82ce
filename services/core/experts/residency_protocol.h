// How a client pins a resident expert without asking, and how the store evicts without breaking a
// pin: hazard pointers across processes.
//
//   client                                store
//   1 read the expert's word: slot s      1 look for pins on s: any, and the expert stays
//   2 add a pin on s in its own page      2 unpublish: set the word to 0
//   3 read the word again                 3 look for pins on s in every page
//     the same: s is the client's           any: publish the same word again, the expert stays
//     else: take the pin back, a miss       none: s may be filled anew
//
// Why it holds: all these accesses are sequentially consistent, so they have one order. If the
// client's 2 comes before the store's 3 for that page, the store sees the pin. Else the store's 2
// comes before the client's 3, and the client sees 0 or a later word. A word that comes back equal
// names the same expert in the same slot, whose bytes are then in place, pinned before the look.
//
// Fences would do as well; accesses are used because the thread sanitizer understands them. On
// x86-64 a hit costs one locked add.
//
// Each Step is one atomic access, so that a simulator can interleave the code itself.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "services/core/experts/pin_page.h"
#include "services/core/experts/residency_table.h"

namespace odmoe {

// One attempt to pin an expert. Not thread-safe; any number run at once.
class PinAttempt {
 public:
  PinAttempt(const ResidencyTable& table, PinPage page, int64_t expert)
      : table_(table), page_(page), expert_(expert) {}

  // Makes one access. True: finished.
  bool Step();
  // Once finished: the slot, pinned, or nothing: not resident.
  std::optional<uint32_t> slot() const { return slot_; }

 private:
  enum class Next { kRead, kPin, kReadAgain, kUnpin };

  ResidencyTable table_;
  PinPage page_;
  int64_t expert_;
  Next next_ = Next::kRead;
  uint64_t word_ = 0;
  uint32_t candidate_ = 0;
  std::optional<uint32_t> slot_;
};

// One attempt to evict a resident expert. One runs at a time for a table.
class EvictionAttempt {
 public:
  // `pages`, those of all clients, outlive the attempt. Requires a published expert.
  EvictionAttempt(ResidencyTableWriter table, absl::Span<const PinPage> pages, int64_t expert)
      : table_(table), pages_(pages), expert_(expert) {}

  bool Step();
  // Once finished: the slot, free, or nothing: a client has pinned it.
  std::optional<uint32_t> slot() const { return slot_; }

 private:
  enum class Next { kRead, kLook, kUnpublish, kLookAgain, kPublish };

  bool Finish(std::optional<uint32_t> slot) {
    slot_ = slot;
    return true;
  }

  ResidencyTableWriter table_;
  absl::Span<const PinPage> pages_;
  int64_t expert_;
  Next next_ = Next::kRead;
  size_t page_ = 0;
  Residency residency_;
  std::optional<uint32_t> slot_;
};

// Whether some client pins the slot. Of a slot whose expert is unpublished: once a page is seen
// without a pin it stays so, for the same reason; so a slot may be drained, page by page, while
// clients that pinned it before go on.
bool AnyPins(absl::Span<const PinPage> pages, uint32_t slot);

// Whole attempts.
std::optional<uint32_t> TryPin(const ResidencyTable& table, PinPage page, int64_t expert);
std::optional<uint32_t> TryEvict(ResidencyTableWriter table, absl::Span<const PinPage> pages,
                                 int64_t expert);

}  // namespace odmoe
