// How CachingExpertStore reads: from the queue to the expert in its slot.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/expert_storage/caching_expert_store.h"
#include "xxhash.h"

namespace odmoe {
namespace {

// Below this the hash takes less time than handing it to another thread.
constexpr uint64_t kHashInPlaceBytes = 128 << 10;
// Between tries of a read that the source had no memory for; doubles.
constexpr absl::Duration kFirstRetry = absl::Milliseconds(5);
constexpr absl::Duration kLastRetry = absl::Seconds(1);
// About what a demand waits for where a prefetch is at the source: one request to the device.
constexpr uint64_t kDelayBytes = 1 << 20;

}  // namespace

void CachingExpertStore::TakeDiskShare() {
  uint64_t desired = source_->desired_bytes_under_way();
  if (disk_ != nullptr) {
    disk_->SetDemanding(scheduler_.waiting() | under_way_.demanding());
    const SharedDisks::Division division = disk_->Divide();
    for (size_t tenant = 0; tenant < tenants_.size(); ++tenant) {
      scheduler_.SetShare(static_cast<int32_t>(tenant), division.shares[tenant]);
    }
    desired = static_cast<uint64_t>(static_cast<double>(desired) * division.part);
  }
  // Of a demand that is queued at least one expert is read, however small the share.
  under_way_.set_desired_bytes(std::max<uint64_t>(1, desired));
}

bool CachingExpertStore::DiskIsWanted() {
  if (!scheduler_.empty() || !under_way_.NoDemand()) return true;
  if (disk_ == nullptr || !disk_->OthersDemand()) return false;
  held_back_ = !prefetches_.empty() || !restores_.empty();
  return true;
}

void CachingExpertStore::Dispatch(Actions& actions) {
  if (stopping_) return;
  scheduler_.UnblockAll();
  TakeDiskShare();
  while (under_way_.WantsDemand()) {
    const std::optional<ReadScheduler::Pick> pick = scheduler_.Next();
    if (!pick) break;
    if (StartNextDemand(*pick, actions)) continue;
    // Another tenant may have room under its quota; without quotas nobody has.
    scheduler_.Block(pick->tenant);
    if (!tenants_.has_quotas()) break;
  }
  const bool starved = scheduler_.any_blocked();
  if (disk_ != nullptr) {
    // A demand that has no slot leaves the disk to others.
    const uint64_t queued = starved && !tenants_.has_quotas() ? 0 : scheduler_.waiting();
    disk_->SetDemanding(queued | under_way_.demanding());
  }
  anyone_starved_.store(starved, std::memory_order_relaxed);
  StartPrefetch(actions);
  StartRestores(actions);
  WakeWatchIfEarlier();
}

bool CachingExpertStore::StartNextDemand(const ReadScheduler::Pick& pick, Actions& actions) {
  const auto slot =
      working_set_.TakeSlot(WorkingSet::Purpose::kDemand, pick.tenant, clients_.pages());
  NoteEvictions(/*for_prefetch=*/false);
  if (!slot) return false;
  ExpertLoad& load = *loads_.at(pick.entry.expert);
  if (!under_way_.NoPrefetch()) judge_.Delayed(std::min(load.bytes, kDelayBytes));
  scheduler_.Take(pick);
  // Every tenant that waits for it pays its part, and waits for it no longer.
  std::vector<int32_t> tenants;
  for (const LoadWaiter& waiter : load.waiters) {
    const int32_t tenant = waiter.demand().client->tenant;
    if (std::find(tenants.begin(), tenants.end(), tenant) == tenants.end()) {
      tenants.push_back(tenant);
    }
  }
  for (int32_t tenant : tenants) {
    if (tenant != pick.tenant) scheduler_.Drop(tenant, load.expert);
    scheduler_.Charge(tenant, load.bytes / tenants.size());
  }
  load.tenant = pick.tenant;
  load.cause = ExpertLoad::Cause::kDemand;
  StartRead(load, *slot, ReadControl::Urgency::kDemand, actions);
  return true;
}

void CachingExpertStore::StartRead(ExpertLoad& load, uint32_t slot, ReadControl::Urgency urgency,
                                   Actions& actions) {
  load.slot = slot;
  load.state = ExpertLoad::State::kReading;
  load.begun_as = urgency;
  load.control = std::make_shared<ReadControl>(urgency);
  under_way_.Begin(load, absl::Now());
  actions.reads.push_back(&load);
}

void CachingExpertStore::Read(ExpertLoad* load) {
  source_->Read(catalog().IdOf(load->expert), arena_->Slot(load->slot), load->control,
                [this, load](absl::Status status) { OnRead(load, std::move(status)); });
}

void CachingExpertStore::RunOnPool(Actions actions) {
  // Not from here: a source that completes within Read would come back here, ever deeper.
  for (ExpertLoad* load : actions.reads) pool_->Schedule([this, load] { Read(load); });
  Deliver(actions);
}

void CachingExpertStore::OnRead(ExpertLoad* load, absl::Status status) {
  if (!status.ok() || load->bytes <= kHashInPlaceBytes || source_->checks_hashes()) {
    if (status.ok()) status = CheckHash(*load);
    Finish(load, std::move(status));
    return;
  }
  pool_->Schedule([this, load] { Finish(load, CheckHash(*load)); });
}

absl::Status CachingExpertStore::CheckHash(const ExpertLoad& load) {
  const ExpertId id = catalog().IdOf(load.expert);
  const LayerExperts& layer = catalog().layers()[layer_of_[load.expert]];
  if (layer.xxh3.empty() || source_->checks_hashes()) return absl::OkStatus();
  const uint64_t expected = layer.xxh3[id.expert];
  const uint64_t got = XXH3_64bits(arena_->Slot(load.slot).data(), layer.layout.bytes);
  if (got == expected) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  ++counters_.checksum_failures;
  return absl::DataLossError(absl::StrCat(
      ExpertName(id), " is corrupt: XXH3 of its ", layer.layout.bytes, " bytes is ",
      absl::Hex(got, absl::kZeroPad16), ", the registry says ",
      absl::Hex(expected, absl::kZeroPad16)));
}

void CachingExpertStore::Finish(ExpertLoad* load, absl::Status status) {
  Actions actions;
  {
    absl::MutexLock lock(&mutex_);
    under_way_.End(*load, absl::Now());
    std::unique_ptr<ExpertLoad> owned = Detach(*load);
    if (status.ok()) {
      SettleRead(*owned, actions);
    } else {
      SettleFailed(std::move(owned), std::move(status), actions);
    }
    TakeAllAccesses();
    AdmitDeferred(actions);
    Dispatch(actions);
  }
  RunOnPool(std::move(actions));
}

std::unique_ptr<ExpertLoad> CachingExpertStore::Detach(ExpertLoad& load) {
  std::unique_ptr<ExpertLoad> owned;
  const auto entry = loads_.find(load.expert);
  if (entry != loads_.end() && entry->second.get() == &load) {
    owned = std::move(entry->second);
    loads_.erase(entry);
    return owned;
  }
  const auto hung = std::find_if(hung_.begin(), hung_.end(),
                                 [&load](const auto& other) { return other.get() == &load; });
  owned = std::move(*hung);
  hung_.erase(hung);
  return owned;
}

void CachingExpertStore::SettleRead(ExpertLoad& load, Actions& actions) {
  const bool unwanted = load.cause == ExpertLoad::Cause::kPrefetch;
  ++counters_.reads;
  counters_.bytes_read += load.bytes;
  const absl::Time now = absl::Now();
  recorder_.SetNow(absl::ToUnixNanos(now));
  recorder_.ReadDone(load.begun_as, load.bytes, absl::ToInt64Microseconds(now - load.started));
  if (load.begun_as == ReadControl::Urgency::kDemand && !load.waiters.empty()) {
    load.waiters.front().demand().client->use.bytes_read += load.bytes;
  }
  if (load.wished) {
    ++counters_.prefetch_reads;
    if (!unwanted) {
      ++counters_.prefetch_useful;
      judge_.Useful(load.bytes);
    }
  }
  const bool late = unwanted && Late(load.wish);
  if (late) judge_.Late(load.bytes);
  if (const auto slot = working_set_.Find(load.expert)) {
    // Its read had hung, and another has brought it meanwhile.
    working_set_.ReturnSlot(load.slot, load.tenant);
    load.slot = *slot;
  } else {
    // What came too late is as good as what was resident long ago.
    const bool behind = late || load.cause == ExpertLoad::Cause::kRestore;
    working_set_.Publish(load.expert, load.slot, load.tenant,
                         behind     ? Arrival::kRestored
                         : unwanted ? Arrival::kWished
                                    : Arrival::kDemanded);
  }
  AnswerAll(load, load.slot, actions);
  const auto anew = loads_.find(load.expert);
  if (anew == loads_.end()) return;
  for (const LoadWaiter& waiter : anew->second->waiters) {
    scheduler_.Drop(waiter.demand().client->tenant, load.expert);
  }
  AnswerAll(*anew->second, load.slot, actions);
  DropIfUnwanted(load.expert);
}

void CachingExpertStore::SettleFailed(std::unique_ptr<ExpertLoad> load, absl::Status status,
                                      Actions& actions) {
  working_set_.ReturnSlot(load->slot, load->tenant);
  if (load->wished) {
    ++counters_.prefetch_dropped;
    // A part of it has been read; how much only the source knows.
    if (absl::IsCancelled(status)) judge_.Late(load->bytes);
  }
  load->wished = false;
  if (absl::IsCancelled(status) && load->control->cancelled()) {
    // A prefetch given up as late; whoever has demanded it meanwhile has it read after all.
    if (load->waiters.empty() || loads_.contains(load->expert)) return;
    ExpertLoad& again = *(loads_[load->expert] = std::move(load));
    Enqueue(again);
    return;
  }
  ++counters_.read_failures;
  if (!absl::IsResourceExhausted(status) || load->waiters.empty()) {
    AnswerAll(*load, status, actions);
    return;
  }
  load->state = ExpertLoad::State::kRetrying;
  load->last_failure = std::move(status);
  load->retry_at =
      absl::Now() + std::min(kLastRetry, kFirstRetry * (1 << std::min(load->failures++, 10)));
  retries_.emplace(load->retry_at, load->expert);
  loads_[load->expert] = std::move(load);
}

}  // namespace odmoe
