#include "services/core/experts/residency_table.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <new>

#include "absl/strings/str_cat.h"
#include "services/core/experts/expert_catalog.h"

namespace odmoe {
namespace {

constexpr uint64_t kMagic = 0x3130535244454d4fu;  // "OMEDRS01", little-endian
constexpr uint32_t kVersion = 2;
// What an address space can hold at the most, and what no product here overflows.
constexpr uint64_t kMaxAddressBytes = uint64_t{1} << 47;

}  // namespace

uint64_t ResidencyTable::BytesFor(uint64_t expert_count) {
  return sizeof(ResidencyHeader) + expert_count * sizeof(ResidencyWord);
}

absl::StatusOr<ResidencyTable> ResidencyTable::Attach(absl::Span<const std::byte> memory) {
  if (memory.size() < sizeof(ResidencyHeader)) {
    return absl::FailedPreconditionError(absl::StrCat("residency table of ", memory.size(),
                                                      " bytes: smaller than its header"));
  }
  const auto* header = reinterpret_cast<const ResidencyHeader*>(memory.data());
  if (header->magic != kMagic || header->version != kVersion ||
      header->header_bytes != sizeof(ResidencyHeader)) {
    return absl::FailedPreconditionError(
        absl::StrCat("not a residency table of version ", kVersion, ": magic ",
                     absl::Hex(header->magic), ", version ", header->version, ", header of ",
                     header->header_bytes, " bytes"));
  }
  if (header->expert_count > static_cast<uint64_t>(ExpertCatalog::kMaxExperts) ||
      BytesFor(header->expert_count) > memory.size() || header->slot_bytes == 0 ||
      header->slot_count >= std::numeric_limits<uint32_t>::max() ||
      !std::has_single_bit(header->segment_slots) ||
      header->slot_count % header->segment_slots != 0 ||
      header->slot_bytes > kMaxAddressBytes / std::max<uint64_t>(1, header->slot_count)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "residency table of ", header->expert_count, " experts and ", header->slot_count,
        " slots of ", header->slot_bytes, " bytes does not fit its ", memory.size(), " bytes"));
  }
  const auto* words =
      reinterpret_cast<const ResidencyWord*>(memory.data() + sizeof(ResidencyHeader));
  return ResidencyTable(header, words);
}

ResidencyShape ResidencyTable::shape() const {
  return {header_->epoch, header_->expert_count, header_->slot_count, header_->slot_bytes,
          header_->segment_slots};
}

uint64_t ResidencyTable::LoadWord(int64_t expert) const {
  if (static_cast<uint64_t>(expert) >= expert_count_) return 0;
  // Sequentially consistent for the pin protocol (residency_protocol.h), which needs this load and
  // the evictor's accesses in one order; it also acquires the bytes that Publish released.
  return words_[expert].load(std::memory_order_seq_cst);
}

std::optional<Residency> ResidencyTable::Decode(uint64_t word) {
  const uint32_t slot_plus_one = static_cast<uint32_t>(word);
  if (slot_plus_one == 0) return std::nullopt;
  return Residency{slot_plus_one - 1, static_cast<uint32_t>(word >> 32)};
}

ResidencyTableWriter ResidencyTableWriter::Format(absl::Span<std::byte> memory,
                                                  const ResidencyShape& shape) {
  auto* words = reinterpret_cast<ResidencyWord*>(memory.data() + sizeof(ResidencyHeader));
  for (uint64_t i = 0; i < shape.expert_count; ++i) new (&words[i]) ResidencyWord(0);
  auto* header = new (memory.data())
      ResidencyHeader{kMagic,           kVersion,         sizeof(ResidencyHeader), shape.epoch,
                      shape.expert_count, shape.slot_count, shape.slot_bytes, shape.segment_slots,
                      {0},                {0},              0};
  return ResidencyTableWriter(header, words);
}

void ResidencyTableWriter::Publish(int64_t expert, Residency residency) {
  const uint64_t word = (uint64_t{residency.generation} << 32) | (uint64_t{residency.slot} + 1);
  writable_words_[expert].store(word, std::memory_order_seq_cst);
}

void ResidencyTableWriter::Unpublish(int64_t expert) {
  writable_words_[expert].store(0, std::memory_order_seq_cst);
}

void ResidencyTableWriter::SetMaxBatch(uint32_t experts) {
  writable_header_->max_batch.store(experts, std::memory_order_relaxed);
}

void ResidencyTableWriter::Close() {
  writable_header_->closed.store(1, std::memory_order_release);
}

}  // namespace odmoe
