// The memory of CachingExpertStore: its segments, who has them mapped, and another budget.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/expert_storage/caching_expert_store.h"

namespace odmoe {
namespace {

// How soon it is noticed that another process has unpinned a slot that is to go.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(1);

// Half of the slots, so that two callers never wait for one another; all of them where every expert
// has a slot and nobody ever waits for one.
uint64_t MaxBatch(uint64_t slots, uint64_t experts, uint64_t demand) {
  if (slots >= experts) return slots;
  return std::max(std::min(std::max<uint64_t>(1, demand), slots), slots / 2);
}

uint64_t SumSlots(const std::vector<Arena::Segment>& segments) {
  uint64_t slots = 0;
  for (const Arena::Segment& segment : segments) slots += segment.slots;
  return slots;
}

std::string SizeText(uint64_t bytes) {
  return absl::StrCat(bytes, " bytes (", FormatBytes(bytes), ")");
}

// A message for each so many segments as one may name.
bool SendSegments(SegmentChannel& channel, SegmentMessage::Kind kind, uint64_t sequence,
                  const std::vector<Arena::Segment>& segments) {
  size_t sent = 0;
  do {
    SegmentMessage message;
    message.kind = kind;
    std::vector<int> fds;
    for (; sent < segments.size() && message.segments.size() < SegmentMessage::kMaxSegments;
         ++sent) {
      message.segments.push_back({segments[sent].number, segments[sent].slots});
      if (kind == SegmentMessage::Kind::kMap) fds.push_back(segments[sent].fd);
    }
    message.more = sent < segments.size();
    // Answered once, when all is done.
    message.sequence = message.more ? 0 : sequence;
    if (!channel.Send(message, fds)) return false;
  } while (sent < segments.size());
  return true;
}

}  // namespace

uint64_t CachingExpertStore::minimum_budget_bytes() const {
  return std::min<uint64_t>(std::max<uint64_t>(1, demand_), catalog().expert_count()) *
         arena_->shape().slot_bytes;
}

void CachingExpertStore::SetMaxBatch(uint64_t slots) {
  const uint64_t experts = static_cast<uint64_t>(catalog().expert_count());
  table_.SetMaxBatch(static_cast<uint32_t>(MaxBatch(slots, experts, demand_)));
}

absl::Span<std::byte> CachingExpertStore::SegmentBytes(const Arena::Segment& segment) const {
  const ArenaShape& shape = arena_->shape();
  return {arena_->Slot(shape.FirstSlot(segment.number)).data(), segment.slots * shape.slot_bytes};
}

void CachingExpertStore::Circulate(const Arena::Segment& segment) {
  working_set_.AddSlots(arena_->shape().FirstSlot(segment.number), segment.slots);
}

bool CachingExpertStore::BeginMapping(const std::shared_ptr<StoreClient>& client,
                                      std::shared_ptr<SegmentChannel> channel) {
  std::vector<Arena::Segment> segments;
  {
    absl::MutexLock lock(&mutex_);
    if (!client->open) return false;
    client->mapped = true;
    client->channel = channel;
    client->welcomed = channel == nullptr;
    segments = segments_;
  }
  if (channel == nullptr) return true;
  SegmentMessage attach;
  attach.kind = SegmentMessage::Kind::kAttach;
  const bool sent =
      channel->Send(attach, {table_region_->fd(), client->region->fd()}) &&
      SendSegments(*channel, SegmentMessage::Kind::kMap, /*sequence=*/0, segments);
  absl::MutexLock lock(&mutex_);
  client->welcomed = true;
  return sent;
}

void CachingExpertStore::Acknowledge(const std::shared_ptr<StoreClient>& client,
                                     uint64_t sequence) {
  absl::MutexLock lock(&mutex_);
  client->acknowledged = std::max(client->acknowledged, sequence);
}

std::vector<std::string> CachingExpertStore::TellClients(
    SegmentMessage::Kind kind, const std::vector<Arena::Segment>& segments) {
  const uint64_t sequence = next_sequence_++;
  std::vector<std::shared_ptr<StoreClient>> told;
  {
    absl::MutexLock lock(&mutex_);
    // Together: whoever attaches from now on is told of the new list at once.
    for (const Arena::Segment& segment : segments) {
      if (kind == SegmentMessage::Kind::kMap) {
        segments_.push_back(segment);
      } else {
        std::erase_if(segments_,
                      [&](const Arena::Segment& s) { return s.number == segment.number; });
      }
    }
    for (const auto& client : clients_.all()) {
      // Whose session has ended need not map what is new; what it has mapped it must give up.
      const bool concerned = client->open || kind == SegmentMessage::Kind::kUnmap;
      if (concerned && client->mapped && client->channel != nullptr) told.push_back(client);
    }
    const auto welcomed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::all_of(told.begin(), told.end(), [](const std::shared_ptr<StoreClient>& client) {
        return client->welcomed || !client->mapped;
      });
    };
    mutex_.AwaitWithTimeout(absl::Condition(&welcomed), client_patience_);
  }
  for (const auto& client : told) {
    std::shared_ptr<SegmentChannel> channel;
    {
      absl::MutexLock lock(&mutex_);
      channel = client->channel;
    }
    if (channel != nullptr) SendSegments(*channel, kind, sequence, segments);
  }
  std::vector<std::shared_ptr<StoreClient>> silent;
  {
    absl::MutexLock lock(&mutex_);
    const auto pending = [&](const std::shared_ptr<StoreClient>& client) {
      return client->mapped && client->acknowledged < sequence;
    };
    const auto answered = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return std::none_of(told.begin(), told.end(), pending);
    };
    mutex_.AwaitWithTimeout(absl::Condition(&answered), client_patience_);
    std::copy_if(told.begin(), told.end(), std::back_inserter(silent), pending);
  }
  std::vector<std::string> names;
  for (const auto& client : silent) {
    names.push_back(absl::StrCat("'", client->name, "'"));
    EndSession(client);
    if (client->expel) {
      client->expel(absl::UnavailableError(
          "the process has not mapped or unmapped memory as the budget changed; dial again"));
    }
  }
  return names;
}

std::vector<SegmentUse> CachingExpertStore::SegmentUses() const {
  std::vector<SegmentUse> uses;
  for (const Arena::Segment& segment : segments_) {
    const uint32_t first = arena_->shape().FirstSlot(segment.number);
    double warmth = 0.0;
    for (uint32_t slot = first; slot < first + segment.slots; ++slot) {
      warmth += static_cast<double>(working_set_.LastDemand(slot));
    }
    uses.push_back({segment.number, segment.slots, warmth / segment.slots});
  }
  return uses;
}

absl::Status CachingExpertStore::Resize(uint64_t budget_bytes, absl::Time deadline) {
  if (budget_bytes < minimum_budget_bytes()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an expert budget of ", SizeText(budget_bytes),
                     " is below what one layer demands, ", SizeText(minimum_budget_bytes())));
  }
  absl::MutexLock resizing(&resize_mutex_);
  return ResizeTo(budget_bytes, deadline);
}

absl::Status CachingExpertStore::ResizeTo(uint64_t budget_bytes, absl::Time deadline) {
  const ArenaShape& shape = arena_->shape();
  ODMOE_ASSIGN_OR_RETURN(const std::vector<uint64_t> quotas, QuotaSlots(budget_bytes));
  const uint64_t target =
      std::min({budget_bytes / shape.slot_bytes, static_cast<uint64_t>(catalog().expert_count()),
                shape.slot_limit()});
  uint64_t now = 0;
  ResizePlan plan;
  {
    absl::MutexLock lock(&mutex_);
    now = working_set_.slots().in_circulation();
    plan = PlanResize(shape, SegmentUses(), target);
  }
  if (target > now) {
    ODMOE_RETURN_IF_ERROR(
        CheckMemoryLeft("a larger expert budget", (target - now) * shape.slot_bytes));
  }
  // Before anything goes: who asks for more at once from now on would wait in vain.
  SetMaxBatch(std::min(now, target));
  std::vector<Arena::Segment> retired = arena_->segments();
  std::erase_if(retired, [&](const Arena::Segment& segment) {
    return std::find(plan.retire.begin(), plan.retire.end(), segment.number) == plan.retire.end();
  });
  absl::Status status = RetireSegments(retired, deadline);
  if (status.ok()) status = AddSegments(plan.add);
  const Arena::Grants grants = arena_->MeasureGrants();
  absl::MutexLock lock(&mutex_);
  grants_ = grants;
  const uint64_t slots = working_set_.slots().in_circulation();
  SetMaxBatch(slots);
  slot_may_be_free_ = true;
  look_now_.Signal();
  if (status.ok()) {
    SetQuotas(quotas);
    budget_bytes_.store(budget_bytes);
  } else if (slots < now) {
    // Memory that was given up could not be had back.
    budget_bytes_.store(slots * shape.slot_bytes);
  }
  FollowSlots();
  return status;
}

absl::Status CachingExpertStore::RetireSegments(const std::vector<Arena::Segment>& segments,
                                                absl::Time deadline) {
  if (segments.empty()) return absl::OkStatus();
  absl::Status status = AwaitDrained(segments, deadline);
  if (status.ok()) {
    const auto silent = TellClients(SegmentMessage::Kind::kUnmap, segments);
    if (silent.empty()) {
      for (const Arena::Segment& segment : segments) {
        source_->TakeBackMemory(SegmentBytes(segment));
        arena_->Remove(segment.number);
      }
      return absl::OkStatus();
    }
    // What a process has mapped is not given back to the system. So it stays in use.
    TellClients(SegmentMessage::Kind::kMap, segments);
    status = absl::ResourceExhaustedError(absl::StrCat(
        SizeText(SumSlots(segments) * arena_->shape().slot_bytes), " that must go are mapped by ",
        absl::StrJoin(silent, ", "), ", which does not answer: its session is ended; resize again ",
        "once the process has ended. The budget stays ", SizeText(budget_bytes_.load())));
  }
  absl::MutexLock lock(&mutex_);
  for (const Arena::Segment& segment : segments) {
    working_set_.RestoreSlots(arena_->shape().FirstSlot(segment.number), segment.slots);
  }
  return status;
}

absl::Status CachingExpertStore::AwaitDrained(const std::vector<Arena::Segment>& segments,
                                              absl::Time deadline) {
  const ArenaShape& shape = arena_->shape();
  for (const Arena::Segment& segment : segments) {
    absl::MutexLock lock(&mutex_);  // for one at a time, so that others get it between
    working_set_.RetireSlots(shape.FirstSlot(segment.number), segment.slots, clients_.pages());
    NoteEvictions(/*for_prefetch=*/false);
  }
  absl::MutexLock lock(&mutex_);
  FollowSlots();
  while (true) {
    SlotTable::Remaining remaining;
    for (const Arena::Segment& segment : segments) {
      const auto here = working_set_.CountRemaining(shape.FirstSlot(segment.number), segment.slots,
                                                    clients_.pages());
      remaining.filling += here.filling;
      remaining.pinned += here.pinned;
    }
    if (remaining.total() == 0) return absl::OkStatus();
    if (absl::Now() >= deadline) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "of ", SizeText(SumSlots(segments) * shape.slot_bytes), " that must go, ",
          remaining.pinned, " experts were pinned and ", remaining.filling,
          " being read until the deadline; the budget stays ", SizeText(budget_bytes_.load())));
    }
    // Another process unpins without a message; so it must be looked for.
    const bool never = false;
    mutex_.AwaitWithTimeout(absl::Condition(&never), kDrainPoll);
  }
}

absl::Status CachingExpertStore::AddSegments(const std::vector<Arena::Segment>& segments) {
  absl::Status status;
  for (const Arena::Segment& segment : segments) {
    status = arena_->Add(segment.number, segment.slots);
    if (!status.ok()) break;
  }
  std::vector<Arena::Segment> added;
  for (const Arena::Segment& there : arena_->segments()) {
    const auto same = [&](const Arena::Segment& s) { return s.number == there.number; };
    if (std::any_of(segments.begin(), segments.end(), same)) added.push_back(there);
  }
  // Before a slot of theirs is used: a client that finds an expert there has it mapped. Who does
  // not answer has lost its session, and looks for nothing any more.
  if (!added.empty()) TellClients(SegmentMessage::Kind::kMap, added);
  // Not under the lock: a source may wait for its thread, and that for the lock, to say that a read
  // has ended.
  for (const Arena::Segment& segment : added) source_->OfferMemory(SegmentBytes(segment));
  absl::MutexLock lock(&mutex_);
  for (const Arena::Segment& segment : added) Circulate(segment);
  return status;
}

}  // namespace odmoe
