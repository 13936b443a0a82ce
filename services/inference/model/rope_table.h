// Rotary position embedding: the angles.
#pragma once

#include <cstdint>
#include <vector>

#include "services/inference/model/config.h"

namespace odmoe {

// Angles of one model's rotary embedding. Pair i of a head's rotated part turns by
// position * frequency(i); pairs are neighbours (2i, 2i+1), as in DeepSeek's checkpoints.
// Immutable, thread-safe.
class RopeTable {
 public:
  explicit RopeTable(const RopeConfig& config);

  // cos, sin of each pair at `position`: config.dimensions floats.
  void Fill(int64_t position, float* out) const;

  // Radians a position, per pair.
  const std::vector<double>& frequencies() const { return frequencies_; }

 private:
  std::vector<double> frequencies_;
  double magnitude_ = 1.0;
};

}  // namespace odmoe
