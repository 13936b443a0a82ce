#include "services/core/tensor/convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/i2_s.h"
#include "services/core/tensor/decoders.h"
#include "services/core/tensor/half_rows.h"

namespace odmoe {

uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520
  if (magnitude < 0x38800000u) {  // below the smallest normal half, 2^-14
    // Adding 0.5 aligns the subnormal's last bit, 2^-24, with the float's last bit.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounding = 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((magnitude + rounding - (112u << 23)) >> 13));
}

float F16ToF32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t F32ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 64u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float BF16ToF32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

namespace {

template <typename T>
void StoreAt(std::byte* out, size_t index, T value) {
  std::memcpy(out + index * sizeof(T), &value, sizeof(T));
}

void EncodeQ8_0(absl::Span<const float> values, std::byte* out) {
  constexpr size_t kElements = BlockQ8_0::kElements;
  for (size_t b = 0; b < values.size() / kElements; ++b) {
    const float* x = values.data() + b * kElements;
    float largest = 0.0f;
    for (size_t i = 0; i < kElements; ++i) largest = std::fmax(largest, std::fabs(x[i]));
    const float d = largest / 127.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    BlockQ8_0 block;
    block.d = F32ToF16(d);
    for (size_t i = 0; i < kElements; ++i) {
      const float q = std::round(x[i] * inverse);
      // NaN and infinity have no code; zero keeps the conversion defined.
      block.qs[i] = std::fabs(q) <= 127.0f ? static_cast<int8_t>(q) : int8_t{0};
    }
    StoreAt(out, b, block);
  }
}

absl::Status NoCodec(DType dtype) {
  return absl::UnimplementedError(
      absl::StrCat("no conversion between float and ", Info(dtype).name));
}

}  // namespace

absl::Status EncodeRow(DType dtype, absl::Span<const float> values, std::byte* out) {
  ODMOE_RETURN_IF_ERROR(RowBytes(dtype, static_cast<int64_t>(values.size())).status());
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(out, values.data(), values.size() * sizeof(float));
      return absl::OkStatus();
    case DType::kF16:
      NarrowF16Row(values, out);
      return absl::OkStatus();
    case DType::kBF16:
      NarrowBF16Row(values, out);
      return absl::OkStatus();
    case DType::kQ8_0:
      EncodeQ8_0(values, out);
      return absl::OkStatus();
    default:
      return NoCodec(dtype);
  }
}

absl::Status DecodeRow(DType dtype, const std::byte* in, absl::Span<float> values) {
  ODMOE_RETURN_IF_ERROR(RowBytes(dtype, static_cast<int64_t>(values.size())).status());
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(values.data(), in, values.size() * sizeof(float));
      return absl::OkStatus();
    case DType::kF16:
      WidenF16Row(in, values);
      return absl::OkStatus();
    case DType::kBF16:
      WidenBF16Row(in, values);
      return absl::OkStatus();
    case DType::kI2_S:
      return absl::UnimplementedError("a row of i2_s has no scale: it is the tensor's");
    default:
      break;
  }
  const BlockDecoder decode = FindBlockDecoder(dtype);
  if (decode == nullptr) return NoCodec(dtype);
  const DTypeInfo& info = Info(dtype);
  const auto* block = reinterpret_cast<const uint8_t*>(in);
  for (size_t i = 0; i < values.size(); i += info.block_elements, block += info.block_bytes) {
    decode(block, values.data() + i);
  }
  return absl::OkStatus();
}

BlockDecoder FindBlockDecoder(DType dtype) {
  if (dtype == DType::kI2_S) return &DecodeI2_SBlock;
  for (const auto find : {&FindSmallBlockDecoder, &FindSuperBlockDecoder, &FindGridBlockDecoder}) {
    if (const BlockDecoder decode = find(dtype)) return decode;
  }
  return nullptr;
}

}  // namespace odmoe
