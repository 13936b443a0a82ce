// The vector encoders, chosen for the machine at hand; for encode.cc and tests.
#pragma once

#include <cstdint>

#include "services/core/tensor/dtype.h"

namespace odmoe {

// Blocks to encode: whole rows of finite floats.
struct EncodeJob {
  const float* values;
  int64_t rows;
  int64_t columns;
  const float* importance;  // [columns], or nullptr
  uint8_t* out;
};

// Encodes a job; compiled for one instruction set.
struct LaneEncoders {
  const char* target;  // "AVX3"
  // False: not a format of these.
  bool (*encode)(DType dtype, const EncodeJob& job);
  bool (*can_encode)(DType dtype);
  // Whether none of x[0, n) is NaN or infinite.
  bool (*all_finite)(const float* x, int64_t n);
};

// The best this machine can run.
const LaneEncoders& BestLaneEncoders();

}  // namespace odmoe
