#include "services/core/experts/residency_protocol.h"

#include <algorithm>

namespace odmoe {

bool PinAttempt::Step() {
  switch (next_) {
    case Next::kRead: {
      word_ = table_.LoadWord(expert_);
      const std::optional<Residency> residency = ResidencyTable::Decode(word_);
      if (!residency || residency->slot >= page_.slot_count()) return true;
      candidate_ = residency->slot;
      next_ = Next::kPin;
      return false;
    }
    case Next::kPin:
      page_.Pin(candidate_);
      next_ = Next::kReadAgain;
      return false;
    case Next::kReadAgain:
      if (table_.LoadWord(expert_) == word_) {
        slot_ = candidate_;
        return true;
      }
      next_ = Next::kUnpin;
      return false;
    case Next::kUnpin:
      page_.Unpin(candidate_);
      break;
  }
  return true;
}

bool EvictionAttempt::Step() {
  switch (next_) {
    case Next::kRead: {
      const std::optional<Residency> residency = table_.Find(expert_);
      if (!residency) return Finish(std::nullopt);
      residency_ = *residency;
      next_ = Next::kLook;
      return false;
    }
    case Next::kLook:
      // Before anything is unpublished: else every pass over a pinned expert would make the hits of
      // other clients miss for a moment.
      if (page_ < pages_.size()) {
        if (pages_[page_].Pinned(residency_.slot)) return Finish(std::nullopt);
        ++page_;
        return false;
      }
      next_ = Next::kUnpublish;
      [[fallthrough]];
    case Next::kUnpublish:
      table_.Unpublish(expert_);
      page_ = 0;
      next_ = Next::kLookAgain;
      return false;
    case Next::kLookAgain:
      if (page_ == pages_.size()) return Finish(residency_.slot);
      if (pages_[page_].Pinned(residency_.slot)) {
        next_ = Next::kPublish;
      } else {
        ++page_;
      }
      return false;
    case Next::kPublish:
      table_.Publish(expert_, residency_);
      break;
  }
  return Finish(std::nullopt);
}

bool AnyPins(absl::Span<const PinPage> pages, uint32_t slot) {
  return std::any_of(pages.begin(), pages.end(),
                     [slot](const PinPage& page) { return page.Pinned(slot); });
}

std::optional<uint32_t> TryPin(const ResidencyTable& table, PinPage page, int64_t expert) {
  PinAttempt attempt(table, page, expert);
  while (!attempt.Step()) {
  }
  return attempt.slot();
}

std::optional<uint32_t> TryEvict(ResidencyTableWriter table, absl::Span<const PinPage> pages,
                                 int64_t expert) {
  EvictionAttempt attempt(table, pages, expert);
  while (!attempt.Step()) {
  }
  return attempt.slot();
}

}  // namespace odmoe
