// Short names of the codes that tables of bad files repeat on every line.
#pragma once

#include "absl/status/status.h"

namespace odmoe {

inline constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
inline constexpr auto kLoss = absl::StatusCode::kDataLoss;

}  // namespace odmoe
