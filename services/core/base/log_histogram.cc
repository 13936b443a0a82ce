#include "services/core/base/log_histogram.h"

#include <numeric>

namespace odmoe {

uint64_t LogHistogram::count() const {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

double LogHistogram::Mean() const {
  const uint64_t values = count();
  return values == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(values);
}

double LogHistogram::Quantile(double q) const {
  double below = std::clamp(q, 0.0, 1.0) * static_cast<double>(count());
  size_t last = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    if (counts[i] == 0) continue;
    last = i;
    const double here = static_cast<double>(counts[i]);
    if (below > here) {
      below -= here;
      continue;
    }
    const double low = i == 0 ? 0.0 : static_cast<double>(UpperBound(i - 1));
    if (i == kBuckets - 1) return low;
    return low + (static_cast<double>(UpperBound(i)) - low) * (below / here);
  }
  return last == 0 ? 0.0 : static_cast<double>(UpperBound(last - 1));
}

LogHistogram& LogHistogram::operator+=(const LogHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts[i] += other.counts[i];
  sum += other.sum;
  return *this;
}

}  // namespace odmoe
