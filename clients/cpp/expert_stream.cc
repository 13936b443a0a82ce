#include "clients/cpp/expert_stream.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;

constexpr char kMethod[] = "/odmoe.expert_storage.v1.ExpertStorageService/ReadExpert";
constexpr absl::Duration kPoll = absl::Milliseconds(50);

// Tag of the chunk as protobuf's wire format has it: field number and wire type 2 in one byte.
constexpr uint8_t kChunkTag = v1::ReadExpertResponse::kChunkFieldNumber << 3 | 2;

// Reads bytes of several slices as if they were one.
class SliceCursor {
 public:
  explicit SliceCursor(const std::vector<grpc::Slice>& slices) : slices_(slices) { SkipEmpty(); }

  bool NextByte(uint8_t& byte) {
    if (slice_ == slices_.size()) return false;
    byte = slices_[slice_].begin()[at_++];
    SkipEmpty();
    return true;
  }

  // A length: five bytes at most, as protobuf reads it.
  bool NextLength(uint64_t& value) {
    value = 0;
    uint8_t byte = 0x80;
    for (int shift = 0; (byte & 0x80) != 0; shift += 7) {
      if (shift > 28 || !NextByte(byte)) return false;
      value |= uint64_t{byte & 0x7fu} << shift;
    }
    return true;
  }

  // What is left, piece by piece.
  uint64_t Rest(std::vector<absl::Span<const std::byte>>& pieces) {
    uint64_t bytes = 0;
    for (; slice_ < slices_.size(); ++slice_, at_ = 0) {
      const grpc::Slice& slice = slices_[slice_];
      pieces.push_back({reinterpret_cast<const std::byte*>(slice.begin()) + at_,
                        slice.size() - at_});
      bytes += pieces.back().size();
    }
    return bytes;
  }

 private:
  void SkipEmpty() {
    while (slice_ < slices_.size() && at_ == slices_[slice_].size()) {
      ++slice_;
      at_ = 0;
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t slice_ = 0;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<ExpertStreamPart> ParseExpertStreamPart(const grpc::ByteBuffer& message) {
  ExpertStreamPart part;
  if (!message.Dump(&part.slices).ok()) return absl::InternalError("a message without bytes");
  SliceCursor cursor(part.slices);
  uint8_t tag = 0;
  uint64_t size = 0;
  if (cursor.NextByte(tag) && tag == kChunkTag) {
    if (!cursor.NextLength(size) || cursor.Rest(part.chunk) != size) {
      return absl::InternalError("the expert store sent a chunk of another size than it said");
    }
    part.chunk_bytes = size;
    return part;
  }
  v1::ReadExpertResponse response;
  grpc::ByteBuffer copy(message);
  if (!grpc::SerializationTraits<v1::ReadExpertResponse>::Deserialize(&copy, &response).ok() ||
      !response.has_header()) {
    return absl::InternalError("the expert store sent neither a header nor a chunk");
  }
  part.header = std::move(*response.mutable_header());
  return part;
}

ExpertStream::ExpertStream(const std::shared_ptr<grpc::Channel>& channel,
                           const v1::ReadExpertRequest& request, absl::Time deadline,
                           std::function<bool()> wanted)
    : wanted_(std::move(wanted)) {
  SetDeadline(context_, deadline);
  call_ = grpc::GenericStub(channel).PrepareCall(&context_, kMethod, &queue_);
  call_->StartCall(this);
  if (!Await()) return;
  const grpc::Slice slice(request.SerializeAsString());
  call_->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), this);
  Await();
}

ExpertStream::~ExpertStream() {
  if (!finished_) {
    Cancel();
    Finish().IgnoreError();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool ExpertStream::Await() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(absl::Now() + kPoll)) ==
         grpc::CompletionQueue::TIMEOUT) {
    if (!wanted_()) Cancel();
  }
  return ok;
}

bool ExpertStream::Read(grpc::ByteBuffer& message) {
  if (!wanted_()) Cancel();
  call_->Read(&message, this);
  return Await();
}

absl::Status ExpertStream::Finish() {
  finished_ = true;
  grpc::Status status;
  call_->Finish(&status, this);
  Await();
  return FromGrpcStatus(status);
}

}  // namespace odmoe
