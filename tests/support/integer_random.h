// Random integers, the same on every machine: SplitMix64 (Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", 2014).
#pragma once

#include <cstdint>

namespace odmoe {

class IntegerRandom {
 public:
  explicit IntegerRandom(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0, bound), for bounds below 2^31.
  int64_t Below(int64_t bound) { return static_cast<int64_t>(Next() >> 32) * bound >> 32; }

 private:
  uint64_t state_;
};

}  // namespace odmoe
