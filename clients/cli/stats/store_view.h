// A store's statistics as a screenful of text.
#pragma once

#include <array>
#include <deque>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "clients/cli/stats/heat_map.h"
#include "clients/cpp/expert_storage_admin.h"

namespace odmoe {

// What happened between two looks at a store, each second. All 0 where nothing is known: no look
// before, or another epoch.
struct StoreRates {
  double seconds = 0.0;     // between the looks
  double hit_rate = 0.0;    // of the demands between them
  double demands = 0.0;     // the rest per second
  double misses = 0.0;
  double evictions = 0.0;
  double stall_seconds = 0.0;
  std::array<double, kReadCauses> read_bytes = {};  // by CauseIndex
  double remote_bytes = 0.0;

  static StoreRates Between(const RemoteStoreStats& before, const RemoteStoreStats& now,
                            absl::Duration passed);
};

// One model, as it is followed over time. Used by one thread.
class StoreHistory {
 public:
  // `taken` later than those before.
  void Add(RemoteStoreStats stats, absl::Time taken);

  const RemoteStoreStats& latest() const { return latest_; }
  const StoreRates& rates() const { return rates_; }
  // Of the intervals in which anything was demanded, the latest last.
  const std::deque<double>& hit_rates() const { return hit_rates_; }
  // Demands since ResetHeat, and residency now.
  std::vector<ExpertHeat> heat() const;
  void ResetHeat();

 private:
  static constexpr size_t kMostHitRates = 512;

  RemoteStoreStats latest_;
  absl::Time taken_ = absl::InfinitePast();
  StoreRates rates_;
  std::deque<double> hit_rates_;
  std::vector<ExpertHeat> heat_start_;
};

// `rows` lines at most, each at most `columns` characters wide beside its colours: figures first,
// then tenants and clients, then the heat map in what is left.
std::vector<std::string> RenderStore(const StoreHistory& history, int rows, int columns,
                                     const DrawingStyle& style);

// "p50 4.1ms, p99 12.0ms" of a histogram of microseconds; "none" without values.
std::string Percentiles(const LogHistogram& histogram_us);

// A text from outside, `most` bytes of it; what could move the cursor is not shown.
std::string PrintableText(const std::string& text, size_t most);

// The last of `values` in [0, 1] as `columns` bars at most.
std::string Sparkline(const std::deque<double>& values, int columns, bool utf8);

}  // namespace odmoe
