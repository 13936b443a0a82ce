#include "clients/cpp/remote_expert_source.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/expert_storage_proto.h"
#include "clients/cpp/expert_stream.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/thread_pool.h"
#include "services/core/rpc/channel.h"
#include "xxhash.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using expert_storage_client::ToProto;

constexpr absl::Duration kFirstBackOff = absl::Milliseconds(20);
constexpr absl::Duration kLongestBackOff = absl::Milliseconds(500);
// How soon a read that waits notices that nobody wants it any more.
constexpr absl::Duration kLookUp = absl::Milliseconds(50);
// How long a stream may take to end once all bytes are here.
constexpr absl::Duration kEnd = absl::Milliseconds(100);
// Experts under way that keep a link busy while one of them begins or ends.
constexpr size_t kStreamsToFillALink = 4;

// One expert on its way: what has arrived, over however many streams.
struct Transfer {
  ExpertId id;
  absl::Span<std::byte> into;  // exactly the expert's bytes
  uint64_t xxh3 = 0;           // as the catalog has it; 0: not known
  uint64_t received = 0;
  int64_t epoch = 0;           // of the store the bytes came from; 0: none came yet
  std::shared_ptr<const ReadControl> control;  // may be null
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash{XXH3_createState(),
                                                                       &XXH3_freeState};

  Transfer() { StartAgain(); }
  void StartAgain() {
    received = 0;
    epoch = 0;
    XXH3_64bits_reset(hash.get());
  }
  bool complete() const { return received == into.size(); }
};

// gRPC allocates what it receives into and frees it when it has been copied. malloc gives that back
// to the system each time, and each page faults again: a third of all the time it takes to receive.
// These bounds keep as much as is under way on a few connections. Setting one fixes both, which
// malloc would otherwise raise to 32 and 64 MiB by itself.
void KeepReceiveBuffers() {
  static std::once_flag once;
  std::call_once(once, [] {
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
  });
}

bool WorthRetrying(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status) || absl::IsCancelled(status);
}

class RemoteExpertSource final : public ExpertSource {
 public:
  RemoteExpertSource(std::vector<std::shared_ptr<grpc::Channel>> channels, std::string model,
                     ExpertCatalog catalog, const RemoteSourceOptions& options)
      : channels_(std::move(channels)),
        model_(std::move(model)),
        catalog_(std::move(catalog)),
        patience_(options.patience),
        streams_(std::max<size_t>(1, options.streams)),
        pool_(streams_) {}

  // Reads under way, which whoever asked for them has not cancelled, end without their bytes.
  ~RemoteExpertSource() override { stopping_ = true; }

  const ExpertCatalog& catalog() const override { return catalog_; }
  bool checks_hashes() const override { return true; }
  uint64_t desired_bytes_under_way() const override {
    return std::min(streams_, kStreamsToFillALink) * catalog_.max_expert_bytes();
  }

  using ExpertSource::Read;
  void Read(ExpertId id, absl::Span<std::byte> destination,
            std::shared_ptr<const ReadControl> control, Done done) override {
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
    auto transfer = std::make_shared<Transfer>();
    transfer->id = id;
    transfer->into = destination.first(layer->layout.bytes);
    transfer->control = std::move(control);
    if (!layer->xxh3.empty()) transfer->xxh3 = layer->xxh3[id.expert];
    pool_.Schedule([this, transfer, done = std::move(done)] { done(ReadToEnd(*transfer)); });
  }

 private:
  absl::Status ReadToEnd(Transfer& transfer) {
    const std::shared_ptr<grpc::Channel>& channel = channels_[next_channel_++ % channels_.size()];
    absl::Time give_up = absl::Now() + patience_;
    absl::Duration back_off = kFirstBackOff;
    while (true) {
      if (!Wanted(transfer)) return NotWanted(transfer);
      const uint64_t before = transfer.received;
      const absl::Status status = ReadOnce(channel, transfer);
      if (status.ok()) return CheckHash(transfer);
      if (!Wanted(transfer)) return NotWanted(transfer);
      if (transfer.received > before) {
        give_up = absl::Now() + patience_;
        back_off = kFirstBackOff;
      }
      // Another store, whose bytes need not continue the former's.
      if (absl::IsAborted(status)) transfer.StartAgain();
      if (!WorthRetrying(status) || absl::Now() + back_off > give_up) return status;
      Pause(back_off, transfer);
      back_off = std::min(2 * back_off, kLongestBackOff);
      // Calls that fail at once give gRPC no thread to connect on, but for one every five seconds.
      AwaitConnected(*channel, give_up, transfer);
    }
  }

  bool Wanted(const Transfer& transfer) const {
    return !stopping_ && (transfer.control == nullptr || !transfer.control->cancelled());
  }

  static absl::Status NotWanted(const Transfer& transfer) {
    return absl::CancelledError(
        absl::StrCat("nobody wants ", ExpertName(transfer.id), " any more"));
  }

  static absl::Status CheckHash(const Transfer& transfer) {
    if (transfer.xxh3 == 0) return absl::OkStatus();
    const uint64_t got = XXH3_64bits_digest(transfer.hash.get());
    if (got == transfer.xxh3) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(
        ExpertName(transfer.id), " arrived corrupt: XXH3 of its ", transfer.into.size(),
        " bytes is ", absl::Hex(got, absl::kZeroPad16), ", expected ",
        absl::Hex(transfer.xxh3, absl::kZeroPad16)));
  }

  void Pause(absl::Duration duration, const Transfer& transfer) const {
    const absl::Time end = absl::Now() + duration;
    while (Wanted(transfer) && absl::Now() < end) {
      absl::SleepFor(std::min(end - absl::Now(), kLookUp));
    }
  }

  void AwaitConnected(grpc::Channel& channel, absl::Time give_up, const Transfer& transfer) const {
    while (Wanted(transfer) && absl::Now() < give_up &&
           !channel.WaitForConnected(
               absl::ToChronoTime(std::min(give_up, absl::Now() + kLookUp)))) {
    }
  }

  absl::Status ReadOnce(const std::shared_ptr<grpc::Channel>& channel, Transfer& transfer) const {
    v1::ReadExpertRequest request;
    request.set_model(model_);
    *request.mutable_expert() = ToProto(transfer.id);
    request.set_offset_bytes(static_cast<int64_t>(transfer.received));
    request.set_epoch(transfer.epoch);
    request.set_model_digest(catalog_.model_digest());
    absl::Time give_up = absl::Now() + patience_;
    ExpertStream stream(channel, request, absl::Now() + patience_ + TransferTime(transfer),
                        [&] { return Wanted(transfer) && absl::Now() < give_up; });
    absl::Status status;
    for (grpc::ByteBuffer message; status.ok() && !transfer.complete() && stream.Read(message);
         message.Clear()) {
      status = Take(message, transfer);
      // What a store may send beyond the expert is not waited for.
      give_up = absl::Now() + (transfer.complete() ? kEnd : patience_);
    }
    if (!status.ok()) stream.Cancel();
    const absl::Status end = stream.Finish();
    ODMOE_RETURN_IF_ERROR(status);
    if (transfer.complete()) return absl::OkStatus();
    // Both limits are ours, not the caller's: a store that hangs is a store that is not there.
    if (absl::IsDeadlineExceeded(end) || absl::Now() >= give_up) {
      return absl::UnavailableError(absl::StrCat("the expert store is too slow to send ",
                                                 ExpertName(transfer.id)));
    }
    ODMOE_RETURN_IF_ERROR(end);
    return absl::UnavailableError(absl::StrCat(ExpertName(transfer.id), " ended after ",
                                               transfer.received, " of ", transfer.into.size(),
                                               " bytes"));
  }

  // At 1 MB/s, the slowest link worth having.
  static absl::Duration TransferTime(const Transfer& transfer) {
    return absl::Microseconds(transfer.into.size() - transfer.received);
  }

  static absl::Status Take(const grpc::ByteBuffer& message, Transfer& transfer) {
    ODMOE_ASSIGN_OR_RETURN(const ExpertStreamPart part, ParseExpertStreamPart(message));
    if (part.header) {
      if (part.header->size_bytes() != static_cast<int64_t>(transfer.into.size()) ||
          (transfer.xxh3 != 0 && part.header->xxh3() != transfer.xxh3)) {
        return absl::FailedPreconditionError(
            absl::StrCat("the expert store serves another ", ExpertName(transfer.id), " now: ",
                         part.header->size_bytes(), " bytes, expected ", transfer.into.size()));
      }
      transfer.epoch = part.header->epoch();
      return absl::OkStatus();
    }
    if (transfer.epoch == 0 || part.chunk_bytes > transfer.into.size() - transfer.received) {
      return absl::InternalError(absl::StrCat(ExpertName(transfer.id), ": a chunk of ",
                                              part.chunk_bytes, " bytes at offset ",
                                              transfer.received, " of ", transfer.into.size()));
    }
    for (const absl::Span<const std::byte> piece : part.chunk) {
      std::memcpy(transfer.into.data() + transfer.received, piece.data(), piece.size());
      // While the piece is in the cache.
      if (transfer.xxh3 != 0) XXH3_64bits_update(transfer.hash.get(), piece.data(), piece.size());
      transfer.received += piece.size();
    }
    return absl::OkStatus();
  }

  const std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::atomic<size_t> next_channel_{0};
  const std::string model_;
  const ExpertCatalog catalog_;
  const absl::Duration patience_;
  const size_t streams_;
  std::atomic<bool> stopping_{false};
  ThreadPool pool_;  // last: its threads use the rest
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(
    const std::string& endpoint, const std::string& model, const RemoteSourceOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const auto admin,
                         ExpertStorageAdmin::Connect(endpoint, absl::Seconds(10)));
  ODMOE_ASSIGN_OR_RETURN(auto description, admin->DescribeModel(model));
  KeepReceiveBuffers();
  std::vector<std::shared_ptr<grpc::Channel>> channels(
      std::clamp<size_t>(options.connections, 1, std::max<size_t>(1, options.streams)));
  for (auto& channel : channels) {
    ODMOE_ASSIGN_OR_RETURN(channel, MakeChannel(endpoint, ChannelUse::kBulk));
  }
  return std::make_unique<RemoteExpertSource>(std::move(channels), description.model.name,
                                              std::move(description.catalog), options);
}

absl::StatusOr<std::unique_ptr<ExpertSource>> ConnectRemoteSource(const std::string& endpoint,
                                                                  const std::string& model) {
  return ConnectRemoteSource(endpoint, model, RemoteSourceOptions());
}

}  // namespace odmoe
