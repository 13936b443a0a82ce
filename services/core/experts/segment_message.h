// What goes over the socket on which a store hands its memory to a client's process.
//
//   client: 16 bytes of token
//   store:  kAttach with the residency table's and the pin page's descriptors; then kMap messages
//           with the descriptors of all segments, the last one without `more`
// and later, whenever the budget changes, each to be answered by kDone with its sequence:
//   store:  kMap, before a slot of a new segment is used
//           kUnmap, when no slot of those segments is in use any more
// The socket stays open as long as the client has anything mapped.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

struct SegmentMessage {
  enum class Kind : uint32_t { kAttach = 1, kMap = 2, kUnmap = 3, kDone = 4 };
  struct Segment {
    uint32_t number = 0;
    uint32_t slots = 0;

    friend bool operator==(const Segment&, const Segment&) = default;
  };
  // What a message carries at most: the kernel takes 253 descriptors at once.
  static constexpr size_t kMaxSegments = 128;
  static constexpr size_t kMaxBytes = 32 + kMaxSegments * sizeof(Segment);

  Kind kind = Kind::kDone;
  uint64_t sequence = 0;  // above 0: to be answered
  bool more = false;      // another kMap follows
  std::vector<Segment> segments;
};

// Host byte order: both ends are on one host.
std::string EncodeSegmentMessage(const SegmentMessage& message);
// INVALID_ARGUMENT: not such a message.
absl::StatusOr<SegmentMessage> DecodeSegmentMessage(absl::string_view bytes);

}  // namespace odmoe
