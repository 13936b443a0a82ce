// The families that FindBlockDecoder asks in turn; for decode_*.cc only.
#pragma once

#include <cstdint>

#include "services/core/tensor/block_formats.h"
#include "services/core/tensor/convert.h"

namespace odmoe {

inline float LoadF16(const uint8_t* at) {
  return F16ToF32(static_cast<uint16_t>(at[0] | at[1] << 8));
}

// Each: nullptr for what is not of its family.
BlockDecoder FindSmallBlockDecoder(DType dtype);
BlockDecoder FindSuperBlockDecoder(DType dtype);

}  // namespace odmoe
