#include "services/expert_storage/prefetch/prefetch_judge.h"

#include <algorithm>

namespace odmoe {

void PrefetchJudge::Useful(uint64_t bytes) {
  counters_.useful_bytes += bytes;
  saved_ += bytes;
  Judge();
}

void PrefetchJudge::Late(uint64_t bytes) {
  counters_.late_bytes += bytes;
  idle_ += bytes;
  Judge();
}

void PrefetchJudge::Wasted(uint64_t bytes) {
  counters_.wasted_bytes += bytes;
  idle_ += bytes;
  Judge();
}

void PrefetchJudge::Delayed(uint64_t request_bytes) {
  ++counters_.delayed_demands;
  cost_ += request_bytes;
}

void PrefetchJudge::Displaced(int64_t expert) {
  displaced_[next_displaced_] = expert;
  next_displaced_ = (next_displaced_ + 1) % displaced_.size();
}

void PrefetchJudge::Demanded(int64_t expert, bool missed, uint64_t bytes) {
  if (pause_left_ > 0) --pause_left_;
  if (!missed) return;
  const auto displaced = std::find(displaced_.begin(), displaced_.end(), expert);
  if (displaced == displaced_.end()) return;
  *displaced = -1;
  counters_.regretted_bytes += bytes;
  cost_ += bytes;
}

void PrefetchJudge::Judge() {
  if (saved_ + idle_ < (trial_ ? window_bytes_ / kTrialPart : window_bytes_)) return;
  const bool pays = saved_ > cost_ + idle_ / kIdleCost;
  saved_ = cost_ = idle_ = 0;
  if (pays) {
    trial_ = false;
    pause_ = kFirstPause;
    return;
  }
  // What was read before a pause may turn out during it: the pause does not grow for that.
  if (!on()) return;
  if (trial_) pause_ = std::min(2 * pause_, kLongestPause);
  trial_ = true;
  pause_left_ = pause_;
  ++counters_.shut_offs;
}

}  // namespace odmoe
