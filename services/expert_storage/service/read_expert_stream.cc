#include "services/expert_storage/service/read_expert_stream.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/slice.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/serve_unary.h"
#include "services/core/rpc/status_codec.h"
#include "services/expert_storage/service/proto_convert.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage_proto;

// How long a call without a deadline of its own waits for its expert.
constexpr absl::Duration kLongestWait = absl::Minutes(1);

// Tag and length of a bytes field, as protobuf's wire format has them: field number and wire type 2
// in one byte, then a varint.
std::string BytesFieldPrefix(int field_number, uint64_t size) {
  std::string prefix(1, static_cast<char>(field_number << 3 | 2));
  for (; size >= 0x80; size >>= 7) prefix.push_back(static_cast<char>((size & 0x7f) | 0x80));
  prefix.push_back(static_cast<char>(size));
  return prefix;
}

}  // namespace

struct ReadExpertStream::Pin {
  Pin(std::shared_ptr<HostedModel> model, uint32_t slot) : model(std::move(model)), slot(slot) {}
  ~Pin() {
    PinPage page = model->store->stream_client()->page;
    page.Unpin(slot);
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

  const std::shared_ptr<HostedModel> model;
  const uint32_t slot;
};

ReadExpertStream* ReadExpertStream::Start(grpc::CallbackServerContext* context,
                                          grpc::ByteBuffer request, StoreHost& models,
                                          ThreadPool& executor, absl::Duration patience) {
  const absl::Time deadline = std::min(DeadlineOf(*context), absl::Now() + kLongestWait);
  std::shared_ptr<ReadExpertStream> stream(new ReadExpertStream(context, models, deadline,
                                                                 patience));
  stream->self_ = stream;
  executor.Schedule([stream, request = std::move(request)]() mutable {
    const absl::Status status = stream->Begin(std::move(request));
    if (status.ok()) return;
    absl::MutexLock lock(&stream->mutex_);
    stream->End(status);
  });
  return stream.get();
}

absl::Status ReadExpertStream::Begin(grpc::ByteBuffer raw) {
  v1::ReadExpertRequest request;
  const grpc::Status parsed = grpc::SerializationTraits<v1::ReadExpertRequest>::Deserialize(
      &raw, &request);
  if (!parsed.ok()) return absl::InvalidArgumentError("the request is no ReadExpertRequest");
  ODMOE_RETURN_IF_ERROR(CheckName("model", request.model()));
  ODMOE_ASSIGN_OR_RETURN(
      auto model, models_.FindMeant(request.model(), request.epoch(), request.model_digest()));
  {
    absl::MutexLock lock(&mutex_);
    model_ = model;
  }
  CachingExpertStore& store = *model->store;
  expert_ = FromProto(request.expert());
  const int64_t index = store.catalog().IndexOf(expert_);
  if (index < 0) {
    return absl::NotFoundError(absl::StrCat("no expert ", ExpertName(expert_), " in this model"));
  }
  size_ = store.catalog().FindLayer(expert_.layer)->layout.bytes;
  if (request.offset_bytes() < 0) return InvalidField("offset_bytes", "expected 0 or above");
  if (static_cast<uint64_t>(request.offset_bytes()) > size_) {
    return absl::OutOfRangeError(absl::StrCat("offset ", request.offset_bytes(), ": ",
                                              ExpertName(expert_), " has ", size_, " bytes"));
  }
  {
    absl::MutexLock lock(&mutex_);
    offset_ = static_cast<uint64_t>(request.offset_bytes());
  }
  Demand demand;
  demand.client = store.stream_client();
  demand.experts = {index};
  demand.deadline = deadline_;
  demand.owner = this;
  demand.deliver = [self = shared_from_this()](size_t, absl::StatusOr<uint32_t> slot) {
    self->OnPinned(std::move(slot));
  };
  store.Serve(std::move(demand));
  return absl::OkStatus();
}

void ReadExpertStream::OnPinned(absl::StatusOr<uint32_t> slot) {
  std::shared_ptr<Pin> pin;
  if (slot.ok()) pin = std::make_shared<Pin>(model_, *slot);
  absl::MutexLock lock(&mutex_);
  if (!slot.ok()) {
    End(slot.status());
  } else if (!finished_) {
    pin_ = std::move(pin);
    message_ = HeaderMessage();
    StartWrite(&message_);
    WatchProgress();
  }
}

grpc::ByteBuffer ReadExpertStream::HeaderMessage() const {
  const CachingExpertStore& store = *model_->store;
  const LayerExperts& layer = *store.catalog().FindLayer(expert_.layer);
  v1::ReadExpertResponse response;
  response.mutable_header()->set_epoch(store.epoch());
  response.mutable_header()->set_size_bytes(static_cast<int64_t>(size_));
  if (!layer.xxh3.empty()) response.mutable_header()->set_xxh3(layer.xxh3[expert_.expert]);
  const grpc::Slice slice(response.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer ReadExpertStream::NextChunk() {
  const uint64_t size = std::min(kChunkBytes, size_ - offset_);
  std::byte* bytes = model_->store->arena().Slot(pin_->slot).data() + offset_;
  auto* held = new std::shared_ptr<Pin>(pin_);
  const grpc::Slice slices[] = {
      grpc::Slice(BytesFieldPrefix(v1::ReadExpertResponse::kChunkFieldNumber, size)),
      grpc::Slice(bytes, size, [](void* pin) { delete static_cast<std::shared_ptr<Pin>*>(pin); },
                  held)};
  offset_ += size;
  model_->store->CountSent(size);
  return grpc::ByteBuffer(slices, 2);
}

void ReadExpertStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  if (finished_) return;
  ++written_;
  if (!ok) {
    End(absl::CancelledError("the client is gone"));
  } else if (offset_ == size_) {
    End(absl::OkStatus());
  } else {
    message_ = NextChunk();
    StartWrite(&message_);
  }
}

void ReadExpertStream::WatchProgress() {
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(absl::Now() + patience_),
              [weak = weak_from_this(), written = written_](bool passed) {
                const auto self = weak.lock();
                if (passed && self != nullptr) self->CheckProgress(written);
              });
}

void ReadExpertStream::CheckProgress(uint64_t written_before) {
  absl::MutexLock lock(&mutex_);
  if (finished_) return;
  if (written_ != written_before) {
    WatchProgress();
    return;
  }
  // Not Finish: it would wait behind what is not taken. OnCancel follows, on a thread of gRPC's.
  context_->TryCancel();
}

void ReadExpertStream::OnCancel() {
  std::shared_ptr<HostedModel> model;
  {
    absl::MutexLock lock(&mutex_);
    model = model_;
    End(absl::CancelledError("the client is gone"));
  }
  if (model != nullptr) model->store->Withdraw(this);
}

void ReadExpertStream::End(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  pin_ = nullptr;
  alarm_ = nullptr;
  Finish(ToGrpcStatus(status));
}

}  // namespace odmoe
