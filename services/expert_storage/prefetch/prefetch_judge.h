// Whether prefetching pays.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace odmoe {

// Weighs what prefetches save against what they cost, both in bytes of reading that demands did not
// or did have to wait for, and says to stop where they cost more.
//
//   saved  useful    an expert that was prefetched, demanded before its eviction
//   cost   delayed   a demand began while a prefetch was at the source: one request's bytes
//          regretted a demand missed an expert that was evicted for a prefetch
//          idle      a part (1 / kIdleCost) of what was read for nothing, wasted or late: idle disk
//                    time is free, but not the memory's bandwidth nor the slot
//
// Judged whenever the outcomes of window_bytes are known. Where prefetching did not pay it pauses
// for so many demanded experts, is tried again with a quarter of the window, and pauses for twice
// as long each time it fails. Deterministic; no clock. Not thread-safe: the store calls it under
// its lock.
class PrefetchJudge {
 public:
  struct Counters {
    uint64_t useful_bytes = 0;
    uint64_t late_bytes = 0;    // given up, or read when their layer had been demanded already
    uint64_t wasted_bytes = 0;  // evicted without a demand
    uint64_t delayed_demands = 0;
    uint64_t regretted_bytes = 0;
    uint64_t shut_offs = 0;
    uint64_t refused = 0;  // wishes dropped while shut off
  };
  static constexpr uint64_t kIdleCost = 8;
  static constexpr uint64_t kFirstPause = 1024;
  static constexpr uint64_t kLongestPause = 65536;

  explicit PrefetchJudge(uint64_t window_bytes) : window_bytes_(window_bytes) {}

  // False: nothing is to be prefetched now.
  bool on() const { return pause_left_ == 0; }
  void Refused() { ++counters_.refused; }

  // What became of a prefetched expert's bytes.
  void Useful(uint64_t bytes);
  void Late(uint64_t bytes);
  void Wasted(uint64_t bytes);
  // A demand's read began beside a prefetch's.
  void Delayed(uint64_t request_bytes);
  // An expert made room for a prefetch.
  void Displaced(int64_t expert);
  // An expert was demanded; `missed`: and was not resident.
  void Demanded(int64_t expert, bool missed, uint64_t bytes);

  const Counters& counters() const { return counters_; }

 private:
  static constexpr uint64_t kTrialPart = 4;

  void Judge();

  const uint64_t window_bytes_;
  Counters counters_;
  // Of the window.
  uint64_t saved_ = 0;
  uint64_t cost_ = 0;
  uint64_t idle_ = 0;
  bool trial_ = false;
  uint64_t pause_ = kFirstPause;
  uint64_t pause_left_ = 0;  // demanded experts
  // The latest experts that made room for a prefetch; -1: none. A ring.
  std::array<int64_t, 64> displaced_ = NoneDisplaced();
  size_t next_displaced_ = 0;

  static constexpr std::array<int64_t, 64> NoneDisplaced() {
    std::array<int64_t, 64> none{};
    none.fill(-1);
    return none;
  }
};

}  // namespace odmoe
