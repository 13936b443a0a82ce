#include "services/expert_storage/arena/arena.h"

#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {

uint64_t SlotBytes(uint64_t expert_bytes) { return RoundUp(expert_bytes, kDirectIoAlignment); }

Arena::Arena(uint64_t slot_bytes, uint64_t slot_count, std::unique_ptr<SharedRegion> region)
    : slot_bytes_(slot_bytes), slot_count_(slot_count), region_(std::move(region)) {}

absl::StatusOr<std::unique_ptr<Arena>> Arena::Create(uint64_t slot_bytes, uint64_t slot_count,
                                                     bool shareable) {
  const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (slot_count == 0 || slot_count >= std::numeric_limits<uint32_t>::max() ||
      slot_bytes > limit / slot_count) {
    return absl::InvalidArgumentError(
        absl::StrCat("an arena of ", slot_count, " slots of ", slot_bytes, " bytes"));
  }
  SharedRegion::Options options;
  options.name = "odmoe-arena";
  options.bytes = slot_count * slot_bytes;
  options.shareable = shareable;
  options.huge_pages = true;
  ODMOE_ASSIGN_OR_RETURN(auto region, SharedRegion::Create(options));
  return absl::WrapUnique(new Arena(slot_bytes, slot_count, std::move(region)));
}

}  // namespace odmoe
