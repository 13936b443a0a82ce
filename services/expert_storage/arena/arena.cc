#include "services/expert_storage/arena/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {
namespace {

// Segments of a budget, and of all experts; see MakeArenaShape.
constexpr uint64_t kSegmentsOfBudget = 64;
constexpr uint64_t kSegmentsOfModel = 512;
// A segment costs a descriptor and a mapping in every process: not for less than this.
constexpr uint64_t kLeastSegmentBytes = kMiB;
// Segments that are not whole, beside those of a model that is resident from end to end.
constexpr uint32_t kPartialSegments = 16;
constexpr uint64_t kMaxArenaBytes = uint64_t{1} << 46;

uint64_t DivideUp(uint64_t value, uint64_t by) { return (value + by - 1) / by; }

std::byte* Aligned(std::byte* address) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  return address + (RoundUp(value, ArenaShape::kHugePageBytes) - value);
}

uint64_t ReservedBytes(const ArenaShape& shape) {
  return shape.address_bytes() + ArenaShape::kHugePageBytes;
}

void* Reserve(const ArenaShape& shape) {
  return mmap(nullptr, ReservedBytes(shape), PROT_NONE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

}  // namespace

uint64_t SlotBytes(uint64_t expert_bytes) { return RoundUp(expert_bytes, kDirectIoAlignment); }

absl::StatusOr<ArenaShape> MakeArenaShape(uint64_t slot_bytes, uint64_t expert_count,
                                          uint64_t slots, uint32_t segment_slots) {
  constexpr uint64_t kMaxSlots = std::numeric_limits<uint32_t>::max() / 4;
  if (slots == 0 || slot_bytes == 0 || std::max(slots, expert_count) >= kMaxSlots ||
      slot_bytes > kMaxArenaBytes / std::max(slots, expert_count)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an arena of ", slots, " slots, for ", expert_count, " experts, of ", slot_bytes,
        " bytes each: expected at least one, and ", FormatBytes(kMaxArenaBytes), " and ",
        kMaxSlots, " slots at most for all experts; is the model's registry right?"));
  }
  ArenaShape shape;
  shape.slot_bytes = slot_bytes;
  const uint64_t most = std::max(slots, expert_count);
  uint64_t chosen = segment_slots;
  if (chosen == 0) {
    chosen = std::max({slots / kSegmentsOfBudget, kLeastSegmentBytes / slot_bytes, uint64_t{1}});
    chosen = std::max(std::bit_floor(chosen), std::bit_ceil(DivideUp(most, kSegmentsOfModel)));
  }
  shape.segment_slots = static_cast<uint32_t>(std::bit_floor(chosen));
  shape.segment_limit = static_cast<uint32_t>(DivideUp(most, shape.segment_slots));
  if (shape.segment_slots > 1) shape.segment_limit += kPartialSegments;
  return shape;
}

absl::StatusOr<std::unique_ptr<Arena>> Arena::Create(const Options& options,
                                                     uint32_t least_segments) {
  ArenaShape shape = options.shape;
  void* reserved = Reserve(shape);
  if (reserved == MAP_FAILED && least_segments < shape.segment_limit) {
    // A limit on address space (ulimit -v): then the budget cannot grow later.
    shape.segment_limit = least_segments;
    reserved = Reserve(shape);
  }
  if (reserved == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot reserve ", FormatBytes(ReservedBytes(shape)),
                     " of addresses for the arena: ", std::strerror(errno),
                     "; is the process's address space limited (ulimit -v)?"));
  }
  return absl::WrapUnique(
      new Arena(options, shape, static_cast<std::byte*>(reserved), ReservedBytes(shape)));
}

Arena::Arena(const Options& options, const ArenaShape& shape, std::byte* reserved,
             uint64_t reserved_bytes)
    : shape_(shape),
      options_(options),
      reserved_(reserved),
      reserved_bytes_(reserved_bytes),
      base_(Aligned(reserved)),
      segments_(shape.segment_limit) {}

Arena::~Arena() {
  {
    absl::MutexLock lock(&mutex_);
    segments_.clear();
  }
  munmap(reserved_, reserved_bytes_);
}

absl::Status Arena::Add(uint32_t segment, uint32_t slots) {
  SharedRegion::Options options;
  options.name = "odmoe-arena";
  options.bytes = slots * shape_.slot_bytes;
  options.shareable = options_.shareable;
  options.huge_pages = options_.huge_pages;
  options.lock_memory = options_.lock_memory;
  options.place = base_ + shape_.SegmentOffset(segment);
  ODMOE_ASSIGN_OR_RETURN(auto region, SharedRegion::Create(options));
  absl::MutexLock lock(&mutex_);
  segments_[segment] = {slots, std::move(region)};
  return absl::OkStatus();
}

void Arena::Remove(uint32_t segment) {
  Held removed;
  absl::MutexLock lock(&mutex_);
  std::swap(removed, segments_[segment]);
}

std::vector<Arena::Segment> Arena::segments() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Segment> there;
  for (uint32_t number = 0; number < segments_.size(); ++number) {
    const Held& held = segments_[number];
    if (held.region != nullptr) there.push_back({number, held.slots, held.region->fd()});
  }
  return there;
}

uint64_t Arena::slot_count() const {
  uint64_t slots = 0;
  for (const Segment& segment : segments()) slots += segment.slots;
  return slots;
}

Arena::Grants Arena::MeasureGrants() const {
  Grants grants;
  if (options_.huge_pages != HugePages::kNever) {
    grants.huge_page_bytes = HugePageBytes({base_, shape_.address_bytes()}, options_.shareable);
  }
  absl::MutexLock lock(&mutex_);
  for (const Held& held : segments_) {
    if (held.region != nullptr && held.region->locked()) {
      grants.locked_bytes += held.region->bytes().size();
    }
  }
  return grants;
}

}  // namespace odmoe
