#include "converter/quantize/lane_encoders.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "services/core/base/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "converter/quantize/lane_encoders.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "converter/quantize/plain_rows-inl.h"
#include "converter/quantize/small_blocks-inl.h"
#include "converter/quantize/super_blocks-inl.h"
#include "converter/quantize/ternary_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace odmoe {
namespace block_lanes {
namespace HWY_NAMESPACE {

using LaneEncoder = void (*)(const LaneBlocks& blocks);

LaneEncoder FindLaneEncoder(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0: return &FitSymmetricBlock<8>;
    case DType::kQ5_0: return &FitSymmetricBlock<16>;
    case DType::kQ4_1: return &FitRangeBlock<15>;
    case DType::kQ5_1: return &FitRangeBlock<31>;
    case DType::kIQ4_NL: return &EncodeIQ4_NL;
    case DType::kMXFP4: return &EncodeMXFP4;
    case DType::kQ2_K: return &EncodeQ2_K;
    case DType::kQ3_K: return &EncodeQ3_K;
    case DType::kQ4_K: return &EncodeQ4_K;
    case DType::kQ5_K: return &EncodeQ5_K;
    case DType::kQ6_K: return &EncodeQ6_K;
    case DType::kTQ1_0: return &EncodeTQ1_0;
    case DType::kTQ2_0: return &EncodeTQ2_0;
    default: return nullptr;
  }
}

// Whether a format's encoder looks at importance.
bool WeighsErrors(DType dtype) {
  return dtype != DType::kMXFP4 && dtype != DType::kTQ1_0 && dtype != DType::kTQ2_0;
}

// Sums over a row, in order; formats of small blocks weigh by the row's mean square.
std::vector<float> RowMeanSquares(const EncodeJob& job) {
  // Several rows at a time hide the latency of an addition.
  constexpr int64_t kRowsAtOnce = 8;
  std::vector<float> means(static_cast<size_t>(job.rows));
  for (int64_t first = 0; first < job.rows; first += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, job.rows - first);
    float sums[kRowsAtOnce] = {};
    for (int64_t c = 0; c < job.columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        const float x = job.values[(first + r) * job.columns + c];
        sums[r] += x * x;
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      means[static_cast<size_t>(first + r)] = sums[r] / static_cast<float>(job.columns);
    }
  }
  return means;
}

#if HWY_TARGET != HWY_SCALAR
// Four rows' next four columns.
HWY_INLINE void TransposeFour(const float* const* rows, int64_t i, float* columns) {
  const hn::FixedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> pairs;
  const auto a = hn::LoadU(d, rows[0] + i), b = hn::LoadU(d, rows[1] + i);
  const auto c = hn::LoadU(d, rows[2] + i), e = hn::LoadU(d, rows[3] + i);
  const auto ab_low = hn::BitCast(pairs, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
  float* out = columns + static_cast<size_t>(i) * kLanes;
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_low, ce_low)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_low, ce_low)), d, out + kLanes);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_high, ce_high)), d, out + 2 * kLanes);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_high, ce_high)), d, out + 3 * kLanes);
}
#endif

// columns[i][lane] = rows[lane][i] for i in [0, count), count a multiple of 4.
void Transpose(const float* const* rows, int64_t count, float* columns) {
#if HWY_TARGET == HWY_SCALAR
  std::copy_n(rows[0], count, columns);
#else
  for (size_t lane = 0; lane < kLanes; lane += 4) {
    for (int64_t i = 0; i < count; i += 4) TransposeFour(rows + lane, i, columns + lane);
  }
#endif
}

bool EncodeInLanes(DType dtype, const EncodeJob& job) {
  const LaneEncoder encode = FindLaneEncoder(dtype);
  if (encode == nullptr) return false;
  const DTypeInfo& info = Info(dtype);
  const int64_t elements = info.block_elements, bytes = info.block_bytes;
  const int64_t blocks_per_row = job.columns / elements;
  const int64_t blocks = job.rows * blocks_per_row;
  const bool weighted = job.importance != nullptr && WeighsErrors(dtype);
  const std::vector<float> means =
      weighted && elements < kSuperBlock ? RowMeanSquares(job) : std::vector<float>();

  HWY_ALIGN float x[kSuperBlock * kLanes];
  HWY_ALIGN float importance[kSuperBlock * kLanes];
  HWY_ALIGN float row_mean_square[kLanes] = {};
  static constexpr float kZeros[kSuperBlock] = {};  // what fills lanes past the last block
  HWY_ALIGN uint8_t image[kSuperBlock * kLanes];
  const LaneBlocks lanes = {x, weighted ? importance : nullptr, row_mean_square, image};
  for (int64_t first = 0; first < blocks; first += static_cast<int64_t>(kLanes)) {
    const size_t used = static_cast<size_t>(std::min<int64_t>(kLanes, blocks - first));
    const float* block_values[kLanes];
    const float* block_importance[kLanes];
    std::fill_n(block_values, kLanes, kZeros);
    std::fill_n(block_importance, kLanes, kZeros);
    for (size_t lane = 0; lane < used; ++lane) {
      const int64_t block = first + static_cast<int64_t>(lane);
      block_values[lane] = job.values + block * elements;
      if (weighted) block_importance[lane] = job.importance + block % blocks_per_row * elements;
      const auto row = static_cast<size_t>(block / blocks_per_row);
      if (!means.empty()) row_mean_square[lane] = means[row];
    }
    Transpose(block_values, elements, x);
    if (weighted) Transpose(block_importance, elements, importance);
    encode(lanes);
    for (size_t lane = 0; lane < used; ++lane) {
      uint8_t* out = job.out + (first + static_cast<int64_t>(lane)) * bytes;
      for (int64_t b = 0; b < bytes; ++b) out[b] = image[static_cast<size_t>(b) * kLanes + lane];
    }
  }
  return true;
}

bool EncodeJobRows(DType dtype, const EncodeJob& job) {
  const RowEncoder encode = FindRowEncoder(dtype, job.importance != nullptr);
  if (encode == nullptr) return EncodeInLanes(dtype, job);
  encode(job.values, job.rows * job.columns, job.out);
  return true;
}

bool HasEncoder(DType dtype) {
  return FindRowEncoder(dtype, false) != nullptr || FindLaneEncoder(dtype) != nullptr;
}

const LaneEncoders* Encoders() {
  static constexpr LaneEncoders kEncoders = {
      .target = &HWY_STR(HWY_NAMESPACE)[2],  // without the N_
      .encode = &EncodeJobRows,
      .can_encode = &HasEncoder,
      .all_finite = &AllFinite,
  };
  return &kEncoders;
}

}  // namespace HWY_NAMESPACE
}  // namespace block_lanes
}  // namespace odmoe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace odmoe {

namespace block_lanes {
HWY_EXPORT(Encoders);
}  // namespace block_lanes

const LaneEncoders& BestLaneEncoders() {
  using namespace block_lanes;  // the dispatch names its table by the bare name
  return *HWY_DYNAMIC_DISPATCH(Encoders)();
}

}  // namespace odmoe
#endif  // HWY_ONCE
