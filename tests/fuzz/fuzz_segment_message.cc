// What a store and its clients say to one another about segments, from a peer that says anything:
// what is taken is bounded, and means the same when it is said again.
#include "services/core/experts/segment_message.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto message =
      DecodeSegmentMessage(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!message.ok()) return 0;
  Require(message->segments.size() <= SegmentMessage::kMaxSegments, "more segments than there are");
  const auto again = DecodeSegmentMessage(EncodeSegmentMessage(*message));
  Require(again.ok() && again->kind == message->kind && again->sequence == message->sequence &&
              again->more == message->more && again->segments == message->segments,
          "an accepted message has another meaning when encoded");
  return 0;
}
