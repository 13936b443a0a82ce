#include "clients/cpp/remote_expert_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/expert_storage_proto.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using expert_storage_client::FromProto;
using expert_storage_client::ToProto;

constexpr absl::Duration kFirstBackOff = absl::Milliseconds(20);
constexpr absl::Duration kLongestBackOff = absl::Milliseconds(500);

// One expert on its way: what has arrived, over however many streams.
struct Transfer {
  ExpertId id;
  absl::Span<std::byte> into;  // exactly the expert's bytes
  uint64_t xxh3 = 0;           // as the catalog has it; 0: not known
  uint64_t received = 0;
  int64_t epoch = 0;           // of the store the bytes came from; 0: none came yet
};

bool WorthRetrying(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status) || absl::IsCancelled(status);
}

class RemoteExpertSource final : public ExpertSource {
 public:
  RemoteExpertSource(std::shared_ptr<grpc::Channel> channel, std::string model,
                     ExpertCatalog catalog, const RemoteSourceOptions& options)
      : channel_(std::move(channel)),
        stub_(v1::ExpertStorageService::NewStub(channel_)),
        model_(std::move(model)),
        catalog_(std::move(catalog)),
        patience_(options.patience),
        pool_(std::max<size_t>(1, options.streams)) {}

  ~RemoteExpertSource() override {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }

  const ExpertCatalog& catalog() const override { return catalog_; }

  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination, std::shared_ptr<const ReadControl>,
            Done done) override {
    const LayerExperts* layer = catalog_.FindLayer(id.layer);
    if (catalog_.IndexOf(id) < 0) {
      done(absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model")));
      return;
    }
    if (destination.size() < layer->layout.bytes) {
      done(absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                   ExpertName(id), " has ",
                                                   layer->layout.bytes)));
      return;
    }
    Transfer transfer;
    transfer.id = id;
    transfer.into = destination.first(layer->layout.bytes);
    if (!layer->xxh3.empty()) transfer.xxh3 = layer->xxh3[id.expert];
    pool_.Schedule([this, transfer, done = std::move(done)] { done(ReadToEnd(transfer)); });
  }

 private:
  absl::Status ReadToEnd(Transfer transfer) {
    absl::Time give_up = absl::Now() + patience_;
    absl::Duration back_off = kFirstBackOff;
    while (true) {
      const uint64_t before = transfer.received;
      const absl::Status status = ReadOnce(transfer);
      if (status.ok()) return status;
      if (transfer.received > before) {
        give_up = absl::Now() + patience_;
        back_off = kFirstBackOff;
      }
      // Another store, whose bytes need not continue the former's.
      if (absl::IsAborted(status)) transfer.received = transfer.epoch = 0;
      if (!WorthRetrying(status) || absl::Now() + back_off > give_up || !Pause(back_off)) {
        return status;
      }
      back_off = std::min(2 * back_off, kLongestBackOff);
      // Calls that fail at once give gRPC no thread to connect on, but for one every five seconds.
      channel_->WaitForConnected(absl::ToChronoTime(give_up));
    }
  }

  // False: no more, the source is being destroyed.
  bool Pause(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), duration);
  }

  absl::Status ReadOnce(Transfer& transfer) {
    v1::ReadExpertRequest request;
    request.set_model(model_);
    *request.mutable_expert() = ToProto(transfer.id);
    request.set_offset_bytes(static_cast<int64_t>(transfer.received));
    request.set_epoch(transfer.epoch);
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + patience_ + TransferTime(transfer));
    const auto reader = stub_->ReadExpert(&context, request);
    v1::ReadExpertResponse response;
    absl::Status status;
    while (status.ok() && reader->Read(&response)) status = Take(response, transfer);
    if (!status.ok()) context.TryCancel();
    const absl::Status end = FromGrpcStatus(reader->Finish());
    ODMOE_RETURN_IF_ERROR(status);
    // The deadline is ours, not the caller's: a store that hangs is a store that is not there.
    if (absl::IsDeadlineExceeded(end)) {
      return absl::UnavailableError(absl::StrCat("the expert store is too slow to send ",
                                                 ExpertName(transfer.id)));
    }
    ODMOE_RETURN_IF_ERROR(end);
    if (transfer.received == transfer.into.size()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(ExpertName(transfer.id), " ended after ",
                                               transfer.received, " of ", transfer.into.size(),
                                               " bytes"));
  }

  // At 1 MB/s, the slowest link worth having.
  static absl::Duration TransferTime(const Transfer& transfer) {
    return absl::Microseconds(transfer.into.size() - transfer.received);
  }

  static absl::Status Take(const v1::ReadExpertResponse& response, Transfer& transfer) {
    if (response.has_header()) {
      const v1::ReadExpertHeader& header = response.header();
      if (header.size_bytes() != static_cast<int64_t>(transfer.into.size()) ||
          (transfer.xxh3 != 0 && header.xxh3() != transfer.xxh3)) {
        return absl::FailedPreconditionError(
            absl::StrCat("the expert store serves another ", ExpertName(transfer.id), " now: ",
                         header.size_bytes(), " bytes, expected ", transfer.into.size()));
      }
      transfer.epoch = header.epoch();
      return absl::OkStatus();
    }
    const std::string& chunk = response.chunk();
    if (transfer.epoch == 0 || chunk.size() > transfer.into.size() - transfer.received) {
      return absl::InternalError(absl::StrCat(ExpertName(transfer.id), ": a chunk of ",
                                              chunk.size(), " bytes at offset ", transfer.received,
                                              " of ", transfer.into.size()));
    }
    std::memcpy(transfer.into.data() + transfer.received, chunk.data(), chunk.size());
    transfer.received += chunk.size();
    return absl::OkStatus();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::ExpertStorageService::Stub> stub_;
  const std::string model_;
  const ExpertCatalog catalog_;
  const absl::Duration patience_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ThreadPool pool_;  // last: its threads use the rest
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(
    const std::string& endpoint, const std::string& model, const RemoteSourceOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const auto admin,
                         ExpertStorageAdmin::Connect(endpoint, absl::Seconds(10)));
  ODMOE_ASSIGN_OR_RETURN(auto description, admin->DescribeModel(model));
  ODMOE_ASSIGN_OR_RETURN(auto channel, MakeChannel(endpoint));
  return std::make_unique<RemoteExpertSource>(std::move(channel), description.model.name,
                                              std::move(description.catalog), options);
}

absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(const std::string& endpoint,
                                                                  const std::string& model) {
  return ConnectRemoteSource(endpoint, model, RemoteSourceOptions());
}

}  // namespace odmoe
