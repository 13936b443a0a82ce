// Times, durations and sizes as messages carry them.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace odmoe {

// Clamped to what protobuf allows: the years 1970 to 9999.
google::protobuf::Timestamp TimestampOf(absl::Time time);
// InfinitePast where it is not present.
absl::Time TimeOf(bool present, const google::protobuf::Timestamp& stamp);

// Clamped to 0 and protobuf's ten thousand years.
google::protobuf::Duration DurationOf(absl::Duration duration);
absl::Duration DurationOf(const google::protobuf::Duration& duration);

// Numbers in messages are signed; what is out of the other type's range is clamped.
int64_t SignedOf(uint64_t number);
uint64_t UnsignedOf(int64_t number);

}  // namespace odmoe
