#include "services/core/codec/number_codec.h"

#include <algorithm>
#include <limits>

#include "google/protobuf/util/time_util.h"

namespace odmoe {
namespace {

// protobuf's bounds of Timestamp and Duration.
constexpr int64_t kMaxTimestampSeconds = 253402300799;
constexpr int64_t kMaxDurationSeconds = 315576000000;

}  // namespace

google::protobuf::Timestamp TimestampOf(absl::Time time) {
  const int64_t micros =
      std::clamp<int64_t>(absl::ToUnixMicros(time), 0, kMaxTimestampSeconds * 1'000'000);
  return google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(micros);
}

absl::Time TimeOf(bool present, const google::protobuf::Timestamp& stamp) {
  if (!present) return absl::InfinitePast();
  return absl::FromUnixSeconds(stamp.seconds()) + absl::Nanoseconds(stamp.nanos());
}

google::protobuf::Duration DurationOf(absl::Duration duration) {
  const int64_t micros = std::clamp<int64_t>(absl::ToInt64Microseconds(duration), 0,
                                             kMaxDurationSeconds * 1'000'000);
  return google::protobuf::util::TimeUtil::MicrosecondsToDuration(micros);
}

absl::Duration DurationOf(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

int64_t SignedOf(uint64_t number) {
  return int64_t(std::min<uint64_t>(number, std::numeric_limits<int64_t>::max()));
}

uint64_t UnsignedOf(int64_t number) { return uint64_t(std::max<int64_t>(number, 0)); }

}  // namespace odmoe
