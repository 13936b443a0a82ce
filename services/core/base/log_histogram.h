// A histogram in powers of two: constant size, a few instructions a value.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace odmoe {

// Counts of whole numbers in a unit that the histogram's name gives. Bucket 0 has those of at most
// 1, bucket i those above 2^(i-1) and at most 2^i, the last all that are larger: microseconds up to
// five hours, or 1.7e10 demands. Not thread-safe.
struct LogHistogram {
  static constexpr size_t kBuckets = 36;

  std::array<uint64_t, kBuckets> counts = {};
  uint64_t sum = 0;  // of the values, modulo 2^64

  void Add(uint64_t value) {
    const size_t bucket = static_cast<size_t>(std::bit_width(value - (value > 0 ? 1 : 0)));
    ++counts[std::min(bucket, kBuckets - 1)];
    sum += value;
  }

  // Largest value that bucket i counts; not for the last, which has no such.
  static constexpr uint64_t UpperBound(size_t i) { return uint64_t{1} << i; }

  uint64_t count() const;
  double Mean() const;
  // The value that a share `q` in [0, 1] of all is at most, to within its bucket, in which the
  // values are taken to lie evenly; 0 without values, and the last bucket's lower bound for those
  // beyond it.
  double Quantile(double q) const;

  // The values of both.
  LogHistogram& operator+=(const LogHistogram& other);

  friend bool operator==(const LogHistogram&, const LogHistogram&) = default;
};

}  // namespace odmoe
