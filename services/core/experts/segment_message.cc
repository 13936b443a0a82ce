#include "services/core/experts/segment_message.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

constexpr uint32_t kSegmentMagic = 0x3147534du;  // "MSG1"

struct WireHeader {
  uint32_t magic;
  uint32_t kind;
  uint64_t sequence;
  uint32_t more;
  uint32_t count;  // segments that follow
};
static_assert(sizeof(WireHeader) <= 32);

}  // namespace

std::string EncodeSegmentMessage(const SegmentMessage& message) {
  const WireHeader header = {kSegmentMagic, static_cast<uint32_t>(message.kind), message.sequence,
                             message.more ? 1u : 0u,
                             static_cast<uint32_t>(message.segments.size())};
  const size_t bytes = message.segments.size() * sizeof(SegmentMessage::Segment);
  std::string encoded(sizeof(header) + bytes, '\0');
  std::memcpy(encoded.data(), &header, sizeof(header));
  if (bytes > 0) std::memcpy(encoded.data() + sizeof(header), message.segments.data(), bytes);
  return encoded;
}

absl::StatusOr<SegmentMessage> DecodeSegmentMessage(absl::string_view bytes) {
  WireHeader header{};
  if (bytes.size() >= sizeof(header)) std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kSegmentMagic || header.kind < 1 || header.kind > 4 ||
      header.count > SegmentMessage::kMaxSegments ||
      bytes.size() != sizeof(header) + header.count * sizeof(SegmentMessage::Segment)) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes.size(), " bytes that are no message about segments"));
  }
  SegmentMessage message;
  message.kind = static_cast<SegmentMessage::Kind>(header.kind);
  message.sequence = header.sequence;
  message.more = header.more != 0;
  message.segments.resize(header.count);
  if (header.count > 0) {
    std::memcpy(message.segments.data(), bytes.data() + sizeof(header),
                header.count * sizeof(SegmentMessage::Segment));
  }
  return message;
}

}  // namespace odmoe
