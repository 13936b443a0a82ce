// Byte sizes and durations as people write and read them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace odmoe {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

// `value` rounded up to a multiple of `alignment`, a power of two. The caller keeps
// value + alignment below 2^64.
constexpr uint64_t RoundUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// "1536" (bytes), "1.5GiB", "200 MB", "64k" (binary where the unit is a lone letter).
// INVALID_ARGUMENT: not a size, negative, or not below 2^63.
absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text);

// "1.50 GiB", "512 B".
std::string FormatBytes(uint64_t bytes);

// "1h02m", "3m07s", "4.2s", "850ms".
std::string ShortDuration(absl::Duration duration);

}  // namespace odmoe
