// The reads that are at the source now.
#pragma once

#include <array>
#include <cstdint>
#include <list>

#include "absl/time/time.h"
#include "services/expert_storage/loads/expert_load.h"
#include "services/expert_storage/tenants/tenant_table.h"

namespace odmoe {

// Says whether the source has enough to do. A read that takes far longer than reads do is stalled:
// it leaves the count, so that a hung one, or several, do not keep others from being read. It stays
// in its slot until the source is done with it. Not thread-safe: the store calls it under its lock.
class ReadsUnderWay {
 public:
  struct Options {
    uint64_t desired_bytes = 0;  // of demands to keep at the source
    size_t max_stalled = 1;      // reads that may leave the count at once
    // A read older than this is stalled. Zero: kStallFactor times what reads have taken lately.
    absl::Duration stalled_after;
  };
  // The mean of some reads under load is within a small factor of the slowest healthy one.
  static constexpr int kStallFactor = 8;
  static constexpr absl::Duration kLeastStall = absl::Milliseconds(20);
  static constexpr absl::Duration kMostStall = absl::Seconds(2);

  explicit ReadsUnderWay(const Options& options) : options_(options) {}

  // What the source wants may change with its tuning, and with who else reads from its disk.
  void set_desired_bytes(uint64_t bytes) { options_.desired_bytes = bytes; }
  void set_max_stalled(size_t reads) { options_.max_stalled = reads; }

  void Begin(ExpertLoad& load, absl::Time now);
  // A demand has joined a read that was begun for something less urgent.
  void Raise(ExpertLoad& load);
  void End(ExpertLoad& load, absl::Time now);

  // There is room for another demand.
  bool WantsDemand() const { return demand_bytes_ < options_.desired_bytes; }
  // Nothing that is not stalled is being read for a demand, for a prefetch.
  bool NoDemand() const { return demand_reads_ == 0; }
  bool NoPrefetch() const { return prefetch_reads_ == 0; }
  // Tenants, a bit each, on whose account demands are being read.
  uint64_t demanding() const { return demanding_; }
  size_t restores() const { return restore_reads_; }
  size_t count() const { return reads_.size() + stalled_.size(); }
  size_t stalled() const { return stalled_.size(); }
  uint64_t demand_bytes() const { return demand_bytes_; }
  const std::list<ExpertLoad*>& active() const { return reads_; }

  // When to call MarkStalled; never: InfiniteFuture.
  absl::Time NextStall() const;
  // Takes overdue reads out of the count; how many.
  size_t MarkStalled(absl::Time now);
  // Gives up what is being read and is wanted by nobody; all of it: the store is closing.
  void CancelAll();

 private:
  void Count(const ExpertLoad& load, bool add);
  absl::Duration StalledAfter() const;

  Options options_;
  std::list<ExpertLoad*> reads_;  // counted, oldest first
  std::list<ExpertLoad*> stalled_;
  uint64_t demand_bytes_ = 0;
  size_t demand_reads_ = 0;
  std::array<size_t, TenantTable::kMaxTenants> demand_reads_of_{};  // by tenant
  uint64_t demanding_ = 0;
  size_t prefetch_reads_ = 0;
  size_t restore_reads_ = 0;
  absl::Duration mean_ = absl::Milliseconds(250);  // of reads, by exponential decay
};

}  // namespace odmoe
