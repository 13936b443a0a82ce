// The pin protocol, whole and with one part broken: a test that cannot tell them apart is none.
#pragma once

#include <optional>

#include "services/core/experts/residency_protocol.h"

namespace odmoe {

// What a client must not do: take a word for good at the first look.
class CarelessPin {
 public:
  CarelessPin(const ResidencyTable& table, PinPage page, int64_t expert)
      : table_(table), page_(page), expert_(expert) {}
  bool Step() {
    if (!candidate_.has_value()) {
      const auto residency = table_.Find(expert_);
      if (!residency) return true;
      candidate_ = residency->slot;
      return false;
    }
    page_.Pin(*candidate_);
    slot_ = candidate_;
    return true;
  }
  std::optional<uint32_t> slot() const { return slot_; }

 private:
  ResidencyTable table_;
  PinPage page_;
  int64_t expert_;
  std::optional<uint32_t> candidate_;
  std::optional<uint32_t> slot_;
};

// What a store must not do: look for pins first, then unpublish, and never look again.
class CarelessEviction {
 public:
  CarelessEviction(ResidencyTableWriter table, absl::Span<const PinPage> pages, int64_t expert)
      : table_(table), pages_(pages), expert_(expert) {}
  bool Step() {
    if (page_ < pages_.size()) {
      const auto residency = table_.Find(expert_);
      if (!residency || pages_[page_].Pinned(residency->slot)) return true;
      ++page_;
      return false;
    }
    slot_ = table_.Find(expert_)->slot;
    table_.Unpublish(expert_);
    return true;
  }
  std::optional<uint32_t> slot() const { return slot_; }

 private:
  ResidencyTableWriter table_;
  absl::Span<const PinPage> pages_;
  int64_t expert_;
  size_t page_ = 0;
  std::optional<uint32_t> slot_;
};

struct WholeProtocol {
  using Pin = PinAttempt;
  using Eviction = EvictionAttempt;
  static constexpr bool kDrains = true;  // waits for the pins of a slot that retires
  static constexpr bool kAsks = true;    // and for the clients to have unmapped it
};
struct WithoutSecondRead : WholeProtocol { using Pin = CarelessPin; };
struct WithoutSecondLook : WholeProtocol { using Eviction = CarelessEviction; };
struct WithoutDraining : WholeProtocol { static constexpr bool kDrains = false; };
struct WithoutAsking : WholeProtocol { static constexpr bool kAsks = false; };

}  // namespace odmoe
