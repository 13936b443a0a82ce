// The families that FindBlockDecoder asks in turn; for decode_*.cc only.
#pragma once

#include <cstdint>

#include "services/core/tensor/block_formats.h"
#include "services/core/tensor/convert.h"

namespace odmoe {

inline float LoadF16(const uint8_t* at) {
  return F16ToF32(static_cast<uint16_t>(at[0] | at[1] << 8));
}

// Points of the grids; see iq_grids.cc.
extern const uint16_t kGridIQ2_XXS[256];
extern const uint16_t kGridIQ2_XS[512];
extern const uint16_t kGridIQ2_S[1024];
extern const uint16_t kGridIQ3_XXS[256];
extern const uint16_t kGridIQ3_S[512];
extern const uint16_t kGridIQ1[2048];

// Each: nullptr for what is not of its family.
BlockDecoder FindSmallBlockDecoder(DType dtype);
BlockDecoder FindSuperBlockDecoder(DType dtype);
BlockDecoder FindGridBlockDecoder(DType dtype);

}  // namespace odmoe
