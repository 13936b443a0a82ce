#include "services/core/experts/pinned_batch.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/experts/residency_protocol.h"

namespace odmoe {
namespace {

// Finds the first occurrence of an expert: by looking, for the few experts a token asks of a layer;
// by hashing for a whole prompt's.
class FirstSeen {
 public:
  explicit FirstSeen(size_t count) : hashed_(count > 32) {}

  // The position the expert was first given with, which is `position` itself the first time.
  size_t Insert(int64_t expert, size_t position) {
    if (hashed_) return by_expert_.try_emplace(expert, position).first->second;
    for (const auto& [seen, at] : seen_) {
      if (seen == expert) return at;
    }
    seen_.emplace_back(expert, position);
    return position;
  }

 private:
  bool hashed_;
  std::vector<std::pair<int64_t, size_t>> seen_;
  absl::flat_hash_map<int64_t, size_t> by_expert_;
};

std::optional<uint32_t> PinMapped(const ArenaView& view, int64_t expert) {
  const auto slot = TryPin(view.table, view.page, expert);
  if (!slot || view.Mapped(*slot)) return slot;
  // The store has ended our session, since we did not map the segment in time. Looked at with the
  // pin in place, as who unmaps looks for pins last.
  PinPage page = view.page;
  page.Unpin(*slot);
  return std::nullopt;
}

// Where this client holds too much already, the store says when it may have what is resident, too.
std::optional<uint32_t> PinInRoom(const ArenaView& view, int64_t expert, bool has_room) {
  if (has_room) return PinMapped(view, expert);
  PinPage page = view.page;
  if (!page.ReserveRoomForHits(1)) return std::nullopt;
  const auto slot = PinMapped(view, expert);
  page.GiveBackRoom(1);
  return slot;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PinnedBatch>> PinnedBatch::PinResident(
    const ArenaView& view, BatchOwner& owner, absl::Span<const ExpertId> ids, absl::Time deadline,
    size_t max_batch) {
  auto batch = absl::WrapUnique(new PinnedBatch(view, owner, deadline));
  ODMOE_ASSIGN_OR_RETURN(const size_t distinct, batch->Resolve(ids, max_batch));
  batch->Pin(distinct);
  return batch;
}

absl::StatusOr<size_t> PinnedBatch::Resolve(absl::Span<const ExpertId> ids, size_t max_batch) {
  FirstSeen first_seen(ids.size());
  std::vector<Entry> entries;
  entries.reserve(ids.size());
  size_t distinct = 0;
  for (ExpertId id : ids) {
    Entry entry;
    entry.expert = view_.catalog->IndexOf(id);
    if (entry.expert < 0) {
      return absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model"));
    }
    entry.layout = &view_.catalog->FindLayer(id.layer)->layout;
    const size_t first = first_seen.Insert(entry.expert, entries.size());
    entry.duplicate = first != entries.size();
    // Where the first one is, until Pin knows more.
    entry.slot = static_cast<uint32_t>(first);
    distinct += entry.duplicate ? 0 : 1;
    entries.push_back(entry);
  }
  if (distinct > max_batch) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a batch of ", distinct, " experts; this store holds at most ", max_batch,
                     " for one caller at once"));
  }
  entries_ = std::move(entries);
  return distinct;
}

void PinnedBatch::Pin(size_t distinct) {
  const bool room_for_all = view_.page.ReserveRoomForHits(distinct);
  for (Entry& entry : entries_) {
    if (entry.duplicate) {
      const Entry& first = entries_[entry.slot];
      entry.miss = first.miss;
      entry.slot = first.slot;
    } else if (const auto slot = PinInRoom(view_, entry.expert, room_for_all)) {
      entry.slot = *slot;
      view_.page.RecordAccess(entry.expert);
      ++hits_;
    } else {
      entry.miss = static_cast<int32_t>(missing_.size());
      missing_.push_back(entry.expert);
    }
  }
  if (room_for_all) view_.page.GiveBackRoom(distinct);
  if (hits_ > 0) view_.page.CountHits(hits_);
  if (!missing_.empty()) board_ = std::make_shared<MissBoard>(view_.page, missing_.size());
}

PinnedBatch::~PinnedBatch() {
  if (entries_.empty()) return;
  for (const Entry& entry : entries_) {
    if (entry.miss < 0 && !entry.duplicate) view_.page.Unpin(entry.slot);
  }
  const bool unanswered = board_ != nullptr && board_->Abandon();
  owner_.BatchReleased(board_.get(), unanswered);
}

bool PinnedBatch::Ready(size_t i) {
  const Entry& entry = entries_[i];
  return entry.miss < 0 || board_->Ready(entry.miss) || absl::Now() >= deadline_;
}

bool PinnedBatch::AwaitReady(size_t i, absl::Time until) {
  const Entry& entry = entries_[i];
  if (entry.miss >= 0) Await(entry.miss, std::min(until, deadline_));
  return Ready(i);
}

absl::StatusOr<ExpertView> PinnedBatch::Wait(size_t i) {
  const Entry& entry = entries_[i];
  if (entry.miss < 0) return View(entry, entry.slot);
  const std::optional<absl::StatusOr<uint32_t>> slot = Await(entry.miss, deadline_);
  if (!slot.has_value()) return owner_.Overdue(entry.expert);
  ODMOE_RETURN_IF_ERROR(slot->status());
  return View(entry, **slot);
}

std::optional<absl::StatusOr<uint32_t>> PinnedBatch::Await(int32_t miss, absl::Time until) {
  const bool stalls = !board_->Ready(miss);
  const absl::Time start = stalls ? absl::Now() : absl::Time();
  std::optional<absl::StatusOr<uint32_t>> slot = board_->Await(miss, until);
  if (stalls) {
    view_.page.CountStall(static_cast<uint64_t>(
        std::max<int64_t>(0, absl::ToInt64Nanoseconds(absl::Now() - start))));
  }
  return slot;
}

ExpertView PinnedBatch::View(const Entry& entry, uint32_t slot) const {
  return {view_.arena + view_.shape.SlotOffset(slot), entry.layout};
}

}  // namespace odmoe
