#include "services/expert_storage/loads/reads_under_way.h"

#include <algorithm>

namespace odmoe {

void ReadsUnderWay::Count(const ExpertLoad& load, bool add) {
  const bool demand = load.cause == ExpertLoad::Cause::kDemand;
  size_t& reads = demand                                            ? demand_reads_
                  : load.cause == ExpertLoad::Cause::kPrefetch ? prefetch_reads_
                                                               : restore_reads_;
  reads += add ? 1 : -1;
  if (!demand) return;
  demand_bytes_ += add ? load.bytes : -load.bytes;
  size_t& of_tenant = demand_reads_of_[load.tenant];
  of_tenant += add ? 1 : -1;
  const uint64_t bit = uint64_t{1} << load.tenant;
  demanding_ = of_tenant > 0 ? demanding_ | bit : demanding_ & ~bit;
}

void ReadsUnderWay::Begin(ExpertLoad& load, absl::Time now) {
  load.started = now;
  load.stalled = false;
  load.under_way = reads_.insert(reads_.end(), &load);
  Count(load, true);
}

void ReadsUnderWay::Raise(ExpertLoad& load) {
  if (!load.stalled) Count(load, false);
  load.cause = ExpertLoad::Cause::kDemand;
  load.control->Raise();
  if (!load.stalled) Count(load, true);
}

void ReadsUnderWay::End(ExpertLoad& load, absl::Time now) {
  if (load.stalled) {
    stalled_.erase(load.under_way);
    load.stalled = false;
    return;
  }
  reads_.erase(load.under_way);
  Count(load, false);
  mean_ += (std::min(now - load.started, kMostStall) - mean_) / 8;
}

absl::Duration ReadsUnderWay::StalledAfter() const {
  if (options_.stalled_after > absl::ZeroDuration()) return options_.stalled_after;
  return std::clamp(kStallFactor * mean_, kLeastStall, kMostStall);
}

absl::Time ReadsUnderWay::NextStall() const {
  if (reads_.empty() || stalled_.size() >= options_.max_stalled) return absl::InfiniteFuture();
  return reads_.front()->started + StalledAfter();
}

size_t ReadsUnderWay::MarkStalled(absl::Time now) {
  if (NextStall() > now) return 0;
  // What was begun together hangs together, and is not to be waited for one after the other.
  const absl::Time begun_by = now - StalledAfter() * 7 / 8;
  size_t marked = 0;
  for (; !reads_.empty() && stalled_.size() < options_.max_stalled; ++marked) {
    ExpertLoad& load = *reads_.front();
    if (load.started > begun_by) break;
    Count(load, false);
    load.stalled = true;
    stalled_.splice(stalled_.end(), reads_, load.under_way);
  }
  // So that a device that has become slow altogether is not taken for one with a hung read.
  mean_ = std::min<absl::Duration>(2 * mean_, kMostStall);
  return marked;
}

void ReadsUnderWay::CancelAll() {
  for (ExpertLoad* load : reads_) load->control->Cancel();
  for (ExpertLoad* load : stalled_) load->control->Cancel();
}

}  // namespace odmoe
